/** The messages of cache.proto that a backend sends and gets, with the proto's own names. */

export type HumanCategory = 'upper_body' | 'lower_body' | 'dresses';

export interface Timestamp {
  seconds: string;
  nanos: number;
}

export interface InvalidateRequest {
  user_id?: string;
  clothing_id?: string;
  owner_id?: string;
  changed_at: Timestamp;
  erase?: boolean;
}

export interface InvalidateResponse {
  removed_count: string;
  invalidated_at: Timestamp;
}

export interface WarmRequest {
  user_id?: string;
  categories?: string[];
  garments?: Garment[];
}

export interface Garment {
  clothing_id: string;
  owner_id?: string;
}

export interface WarmResponse {
  done: number;
  total: number;
  failed: { key: { namespace: string; id: string }; reason: string } | null;
}

/** A Date has milliseconds: store the time of a change in no finer unit. */
export function timestampOf(moment: Date): Timestamp {
  const ms = moment.getTime();
  const seconds = Math.floor(ms / 1000);
  return { seconds: String(seconds), nanos: (ms - seconds * 1000) * 1_000_000 };
}

export function dateOf(moment: Timestamp): Date {
  return new Date(Number(moment.seconds) * 1000 + moment.nanos / 1_000_000);
}

export function categoryOf(name: HumanCategory): string {
  return `HUMAN_CATEGORY_${name.toUpperCase()}`;
}
