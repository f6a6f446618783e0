/**
 * Bytes of V8's young generation, both halves, that are enough for a thread that runs guests. Its growth is stopped once it is beyond half of
 * them: Nodes to 24, which double it, have all of them by then, and Node 26 adds page by page.
 */
const ENOUGH = 8 << 20;
const LOOK_MS = 50;
/** A program that has made little so long after its start is looked at less often. */
const START_LOOKS = 200;
const LATER_LOOK_MS = 1000;

/**
 * Keeps V8's young generation from growing beyond some 8 MiB: by itself it takes 32 to 64 MiB, which are then in memory for good, and
 * nothing is gained, because next to nothing of what a VM leaves behind is alive when it is collected. For programs that are there for
 * their VM, as `elvisor run` is: it changes the whole process.
 */
export function limitYoungGeneration(): void {
  let looks = 0;
  const look = async (): Promise<void> => {
    const { getHeapSpaceStatistics } = await import('node:v8');
    const young = getHeapSpaceStatistics().find(({ space_name: name }) => name === 'new_space');
    if (young !== undefined && young.space_size > ENOUGH / 2) {
      const { setYoungGrowth } = await import('./v8-flags.js');
      // V8 looks at it whenever it might grow; what was given on the command line it has taken in for good. Not earlier: once a flag is set,
      // V8 takes none of the compiled code that Node carries of its modules, and compiles each that is loaded from then on.
      setYoungGrowth(1);
      return;
    }
    looks++;
    wait();
  };
  const wait = (): void => {
    setTimeout(look, looks < START_LOOKS ? LOOK_MS : LATER_LOOK_MS).unref();
  };
  wait();
}
