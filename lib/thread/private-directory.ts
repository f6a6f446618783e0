import { lstatSync, mkdirSync, type Stats } from 'node:fs';

/** Whether a file or directory is this user's, and nobody else may write to it. Where there are no users, it is. */
export const isPrivate = ({ uid, mode }: Stats): boolean =>
  process.geteuid === undefined || (uid === process.geteuid() && (mode & 0o022) === 0);

/**
 * Makes the directory where it is missing. What is found in it is run, so nobody else may be able to put anything there.
 * @returns `undefined` where it is not the user's own
 */
export function privateDirectory(path: string): string | undefined {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
    const stat = lstatSync(path);
    return stat.isDirectory() && isPrivate(stat) ? path : undefined;
  } catch {
    return undefined;
  }
}
