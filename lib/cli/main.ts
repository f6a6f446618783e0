#!/usr/bin/env node
// Before anything else is loaded: what is loaded from here on can come out of the cache.
import { lowerHelperThreads } from '../thread/priority.js';
import { limitYoungGeneration } from '../thread/young-generation.js';
import { cacheCompiledCode } from './compile-cache.js';

lowerHelperThreads();
limitYoungGeneration();
cacheCompiledCode();
await import('./command.js');
