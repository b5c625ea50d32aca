/** How do an application's own tests work without Redis and daemons? With this provider. */

import type { Provider } from '@nestjs/common';

import { CacheService, checked, type ChangeOptions, type Wanted, type Warmed } from './cache.service';
import type { Acknowledgement, Change, Receipt } from './outbox';

/** The public methods of the service. */
export type CacheLike = Pick<CacheService, keyof CacheService>;

/**
 * Records the calls in order. Refuses the same ids as the real service. Every change
 * is acknowledged at once, by one host named `fake`.
 */
export class FakeCache implements CacheLike {
  readonly changes: Change[] = [];
  readonly warmedUsers: string[] = [];
  /** What `exists` finds: ids of people and garments. */
  readonly present = new Set<string>();
  /** Makes every call reject, as without Redis. */
  failure: Error | undefined;

  onModuleInit(): void {}

  async onApplicationShutdown(): Promise<void> {}

  async invalidateHuman(userId: string, options: ChangeOptions = {}): Promise<Receipt> {
    return this.add({ user_id: checked(userId) }, options);
  }

  async invalidateGarment(clothingId: string, options: ChangeOptions = {}): Promise<Receipt> {
    return this.add({ clothing_id: checked(clothingId) }, options);
  }

  async deleteAccount(ownerId: string, options: ChangeOptions = {}): Promise<Receipt> {
    return this.add({ owner_id: checked(ownerId) }, options, true);
  }

  async acknowledged(receipt: Receipt): Promise<Acknowledgement[]> {
    const invalidatedAt = receipt.changedAt.toISOString();
    return receipt.jobs.map(({ host }) => ({ host, removedCount: 0, invalidatedAt }));
  }

  async backlog() {
    return [{ host: 'fake', waiting: 0 }];
  }

  async deadLetters() {
    return [];
  }

  async redeliver(): Promise<void> {}

  async warmup(userId: string): Promise<Warmed[]> {
    this.refuse();
    this.warmedUsers.push(checked(userId));
    return [{ host: 'fake', done: 0, total: 0, absent: [], failed: [] }];
  }

  async exists(wanted: Wanted): Promise<boolean> {
    this.refuse();
    return this.present.has(checked('userId' in wanted ? wanted.userId : wanted.clothingId));
  }

  private add(target: Change['target'], { changedAt }: ChangeOptions, erase = false): Receipt {
    this.refuse();
    const at = changedAt ?? new Date();
    this.changes.push({ target, changedAt: at.toISOString(), erase });
    return { changedAt: at, jobs: [{ host: 'fake', id: String(this.changes.length) }] };
  }

  private refuse(): void {
    if (this.failure) throw this.failure;
  }
}

/** `{ providers: [fakeCache(fake)] }` instead of `CacheModule.forRoot(...)`. */
export function fakeCache(fake: FakeCache = new FakeCache()): Provider {
  return { provide: CacheService, useValue: fake };
}
