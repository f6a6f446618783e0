#!/usr/bin/env node
// Before anything else is loaded: what is loaded from here on can come out of the cache.
import { cacheCompiledCode } from './compile-cache.js';

cacheCompiledCode();
await import('./command.js');
