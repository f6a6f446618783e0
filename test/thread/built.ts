import { fileURLToPath } from 'node:url';

/** A module of the build, by its path in `dist`, as a program in JavaScript names it in an `import`. */
export const built = (path: string): string =>
  JSON.stringify(fileURLToPath(new URL(`../../dist/${path}`, import.meta.url)));
