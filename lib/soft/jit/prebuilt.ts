import type { InterpreterImage } from './interpreter-image.js';

/** What is the same for every machine and takes long to make. */
export interface Prebuilt {
  readonly interpreter: InterpreterImage;
  /** The module with the functions of pointer authentication, in base64. */
  readonly pointerAuth: string;
}

/** What was made ahead. The package's bundle has it (rollup.config.js puts it here); a plain build makes all of it when it is needed. */
export const prebuilt = (): Prebuilt | undefined => undefined;
