/**
 * The package's JavaScript in a few files: to load 170 modules one by one takes Node four times as long. Types, and what the
 * tests import, stay what tsc writes.
 */
const entries = {
  index: 'index.js',
  host: 'host/index.js',
  kvm: 'kvm/index.js',
  soft: 'soft/index.js',
  fdt: 'vmm/fdt/index.js',
  cli: 'cli/main.js',
  'compiler-worker': 'thread/compiler-worker.js',
};

export default {
  input: Object.fromEntries(Object.entries(entries).map(([name, file]) => [name, `dist/${file}`])),
  external: [/^node:/, /^[a-z@]/],
  // All in one folder, as deep as the modules were: files that they find by import.meta.url are where they were.
  output: { dir: 'dist/bundle', format: 'es', chunkFileNames: '[name].js', hoistTransitiveImports: false },
  onwarn(warning, warn) {
    // Types of one another's; nothing is called while they load.
    if (warning.code !== 'CIRCULAR_DEPENDENCY') warn(warning);
  },
};
