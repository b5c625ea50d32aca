/**
 * Is another call worthwhile? The reason decides if it says more than the status.
 *
 * Every call of the contract is idempotent, so repeating one is always allowed. An
 * invalidation that gives up is a stale photo: `never` is only for what the daemon would
 * answer the same way for ever.
 */

import { status as Code } from '@grpc/grpc-js';

/**
 * `soon`: with exponential backoff. `slowly`: once a minute, because a person has to do
 * something first (a token, a role, a setting). `never`: the request itself is wrong, or was
 * answered.
 */
export type Verdict = 'soon' | 'slowly' | 'never';

export const BY_CODE: Readonly<Record<Code, Verdict>> = {
  [Code.OK]: 'never',
  [Code.CANCELLED]: 'soon',
  [Code.UNKNOWN]: 'soon',
  [Code.INVALID_ARGUMENT]: 'never',
  [Code.DEADLINE_EXCEEDED]: 'soon',
  [Code.NOT_FOUND]: 'never',
  [Code.ALREADY_EXISTS]: 'never',
  [Code.PERMISSION_DENIED]: 'slowly',
  [Code.RESOURCE_EXHAUSTED]: 'soon',
  [Code.FAILED_PRECONDITION]: 'slowly',
  [Code.ABORTED]: 'soon',
  [Code.OUT_OF_RANGE]: 'never',
  [Code.UNIMPLEMENTED]: 'slowly',
  [Code.INTERNAL]: 'slowly',
  // Also a failed TLS handshake, which has no reason: gRPC has no call yet that could be refused.
  [Code.UNAVAILABLE]: 'soon',
  [Code.DATA_LOSS]: 'slowly',
  [Code.UNAUTHENTICATED]: 'slowly',
};

/** Reasons with another verdict than their status. */
export const BY_REASON: Readonly<Record<string, Verdict>> = {
  OWNER_REQUIRED: 'never', // name the owner
  KIND_VERSION_MISMATCH: 'never', // deploy the same model on both sides
  PUT_OUTDATED: 'never', // read the source again; the same bytes stay too old
  PUT_FENCED: 'never',
  ENTRY_TOO_LARGE: 'never',
  REQUEST_TOO_LARGE: 'never',
  ORIGIN_CREDENTIALS_UNAVAILABLE: 'slowly',
};

export function verdictOn(code: Code, reason: string): Verdict {
  return BY_REASON[reason] ?? BY_CODE[code] ?? 'slowly';
}
