#!/usr/bin/env node
// Before anything else is loaded: what is loaded from here on can come out of the cache.
import { lowerHelperThreads } from '../thread/priority.js';
import { cacheCompiledCode } from './compile-cache.js';

lowerHelperThreads();
cacheCompiledCode();
await import('./command.js');
