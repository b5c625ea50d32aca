export { CacheCallError } from './cache-call-error';
export { CacheModule } from './cache.module';
export { CacheService, type ChangeOptions, type Wanted, type Warmed } from './cache.service';
export type { Garment, HumanCategory } from './messages';
export type { CacheOptions, HostOptions, TlsFiles } from './options';
export type { Acknowledgement, Backlog, Change, DeadLetter, Receipt } from './outbox';
export {
  PHOTO_CHANGE_STEPS,
  PhotoChange,
  tryOnBody,
  type PhotoChangeRecord,
  type PhotoChangeSteps,
} from './photo-change';
export { BY_CODE, BY_REASON, verdictOn, type Verdict } from './retry-table';
export { FakeCache, fakeCache } from './testing';
