/** Handlers that are part of the interpreter's loop: `row name|static fields`, as counted in a Debian boot and ordinary programs. */
export const HOT_HANDLERS: readonly string[] = [];
