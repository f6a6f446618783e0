/** `@jest/globals` in the machine: jest's own test engine and `expect`, without the rest of jest. */
import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
export const { afterAll, afterEach, beforeAll, beforeEach, describe, it, test } = require('jest-circus');
export const { jestExpect: expect } = require('@jest/expect');
/** What @fast-check/jest imports, and no test of the machine's uses. */
export const jest = {};
