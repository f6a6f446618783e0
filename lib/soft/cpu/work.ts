/** What things cost that a run's budget of instructions does not see, in units of very roughly a microsecond. */
export const Work = { CALL: 1, EXCEPTION: 2, DECODE: 6, COMPILE: 2000 } as const;
/** How much of it passes between two looks at the clock. */
export const WORK_BETWEEN_LOOKS = 128;
