import ts from 'typescript';

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

/** Puts what every run needs and takes long to make into the bundle, ready made by the very modules that are bundled. */
const prebuilt = {
  name: 'prebuilt',
  async load(id) {
    if (id.endsWith('/dist/thread/engine-build.js')) {
      const { engineBuild } = await import('./dist/thread/engine-build.js');
      return `export const engineBuild = () => ${JSON.stringify(engineBuild())};\n`;
    }
    if (!id.endsWith('/dist/soft/jit/prebuilt.js')) return null;
    const { prebuild } = await import('./dist/soft/cpu/prebuild.js');
    const { interpreter, pointerAuth } = prebuild();
    const { wasm, ...tables } = interpreter;
    // Long texts stand outside of functions: V8 keeps them with the code that it has made of a module, and reads a function anew at each start.
    const texts = Object.entries({ wasm, pointerAuth, tables: JSON.stringify(tables) });
    const constants = texts.map(([name, text]) => `const ${name} = ${JSON.stringify(text)};\n`).join('');
    return `${constants}let made;
export const prebuilt = () => (made ??= { interpreter: { ...JSON.parse(tables), wasm }, pointerAuth });\n`;
  },
};

/** Leaves comments out, and characters that are not ASCII as escapes: V8 reads half as much, and keeps a byte for a character. */
const lean = {
  name: 'lean',
  renderChunk(code) {
    const compilerOptions = { target: ts.ScriptTarget.ESNext, module: ts.ModuleKind.ESNext, removeComments: true };
    const { outputText } = ts.transpileModule(code, { compilerOptions });
    return outputText.replace(/[^\0-\x7f]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
  },
};

export default {
  input: Object.fromEntries(Object.entries(entries).map(([name, file]) => [name, `dist/${file}`])),
  plugins: [prebuilt, lean],
  external: [/^node:/, /^[a-z@]/],
  // All in one folder, as deep as the modules were: files that they find by import.meta.url are where they were.
  output: { dir: 'dist/bundle', format: 'es', chunkFileNames: '[name].js', hoistTransitiveImports: false },
  onwarn(warning, warn) {
    // Types of one another's; nothing is called while they load.
    if (warning.code !== 'CIRCULAR_DEPENDENCY') warn(warning);
  },
};
