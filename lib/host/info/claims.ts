import type { Confidence, Evidence, Finding } from './types.js';

/** One source's word for a value. */
export interface Claim<T> {
  readonly value: T;
  readonly confidence: Exclude<Confidence, 'none'>;
  readonly source: string;
  readonly said: string;
}

const WEIGHT = { certain: 3, likely: 2, guess: 1 } as const;
const LOWERED = { certain: 'likely', likely: 'guess', guess: 'guess' } as const;

/**
 * The value that the strongest claim is for, with all that speaks for it. Where an equally strong one contradicts, the first
 * wins, and the confidence is a step lower.
 */
export function weigh<T>(claims: readonly (Claim<T> | undefined)[]): Finding<T> {
  const made = claims.filter((claim) => claim !== undefined);
  let best = made[0];
  if (best === undefined) return { value: null, confidence: 'none', evidence: [] };
  for (const claim of made) if (WEIGHT[claim.confidence] > WEIGHT[best.confidence]) best = claim;
  const { value, confidence } = best;
  const against = made.filter((claim) => claim.value !== value && claim.confidence === confidence);
  // Two claims may rest on the same words.
  const evidence = new Map<string, Evidence>();
  for (const { source, said } of [...made.filter((claim) => claim.value === value), ...against]) {
    evidence.set(`${source}\n${said}`, { source, said });
  }
  return {
    value,
    confidence: against.length === 0 ? confidence : LOWERED[confidence],
    evidence: [...evidence.values()],
  };
}
