/** What may the rest of the backend ask of the caches? */

import { Inject, Injectable, type OnApplicationShutdown, type OnModuleInit } from '@nestjs/common';
import { status as Code } from '@grpc/grpc-js';
import { setTimeout as pause } from 'node:timers/promises';

import { CacheCallError } from './cache-call-error';
import { HostClient } from './host-client';
import {
  categoryOf,
  dateOf,
  timestampOf,
  type Garment,
  type HumanCategory,
  type WarmResponse,
} from './messages';
import { CACHE_OPTIONS, checkOptions, type CacheOptions } from './options';
import {
  Outbox,
  type Acknowledgement,
  type Backlog,
  type Change,
  type DeadLetter,
  type Receipt,
} from './outbox';

/** `changedAt`: the time of the change in the database; otherwise now. */
export interface ChangeOptions {
  changedAt?: Date;
}

/** An entry to ask for. Only with its owner can a garment that is not cached be found. */
export type Wanted = { originAfter?: Date } & (
  | { userId: string; category: HumanCategory }
  | { clothingId: string; ownerId?: string; part?: 'garment' | 'text' }
);

export interface WarmFailure {
  namespace: string;
  id: string;
  reason: string;
}

export interface Warmed {
  host: string;
  done: number;
  total: number;
  /** What the origin does not have, such as a category of which a person has no photo. */
  absent: WarmFailure[];
  failed: WarmFailure[];
  /** The call's status. After DEADLINE_EXCEEDED the daemon goes on. */
  error?: CacheCallError;
}

const ID = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;
const ROUNDS = 3;
const BETWEEN_ROUNDS_MS = 200;

@Injectable()
export class CacheService implements OnModuleInit, OnApplicationShutdown {
  private readonly hosts: Map<string, HostClient>;
  private readonly outbox: Outbox;

  constructor(@Inject(CACHE_OPTIONS) options: CacheOptions) {
    checkOptions(options);
    this.hosts = new Map(options.hosts.map((host) => [host.name, new HostClient(host, options)]));
    this.outbox = new Outbox(options, (host, change) => this.deliver(host, change));
  }

  /** Does not wait for Redis: without it the backend serves, and invalidations are refused. */
  onModuleInit(): void {
    void this.outbox.checkRedis().catch(() => undefined); // its connection logs what is wrong
  }

  async onApplicationShutdown(): Promise<void> {
    await this.outbox.close();
    for (const host of this.hosts.values()) host.close();
  }

  /** All categories of a person, on every host. Resolves when the jobs are in Redis. */
  async invalidateHuman(userId: string, options: ChangeOptions = {}): Promise<Receipt> {
    return this.outbox.add(changeOf({ user_id: checked(userId) }, options));
  }

  /** A garment and its text, on every host. */
  async invalidateGarment(clothingId: string, options: ChangeOptions = {}): Promise<Receipt> {
    return this.outbox.add(changeOf({ clothing_id: checked(clothingId) }, options));
  }

  /** All entries of an owner. Bytes that workers have mapped are also zeroed. */
  async deleteAccount(ownerId: string, options: ChangeOptions = {}): Promise<Receipt> {
    return this.outbox.add({ ...changeOf({ owner_id: checked(ownerId) }, options), erase: true });
  }

  /** Resolves when every host has acknowledged: from then on the change is final everywhere. */
  acknowledged(receipt: Receipt, timeoutMs: number): Promise<Acknowledgement[]> {
    return this.outbox.acknowledged(receipt, timeoutMs);
  }

  backlog(): Promise<Backlog[]> {
    return this.outbox.backlog();
  }

  deadLetters(): Promise<DeadLetter[]> {
    return this.outbox.deadLetters();
  }

  redeliver(host: string, id: string): Promise<void> {
    return this.outbox.redeliver(host, id);
  }

  /** Warms every host at once. Best effort: a host that is down is an `error`. */
  async warmup(
    userId: string,
    wanted: { categories?: HumanCategory[]; garments?: Garment[] } = {},
  ): Promise<Warmed[]> {
    const request = {
      user_id: checked(userId),
      categories: (wanted.categories ?? []).map(categoryOf),
      garments: wanted.garments ?? [],
    };
    return Promise.all(
      [...this.hosts.values()].map(async (host) => {
        const warmed: Warmed = { host: host.name, done: 0, total: 0, absent: [], failed: [] };
        try {
          await host.warm(request, (step) => follow(warmed, step));
        } catch (error) {
          if (!(error instanceof CacheCallError)) throw error;
          warmed.error = error;
        }
        return warmed;
      }),
    );
  }

  /**
   * Whether a host's cache or the origin has the entry; no bytes are sent. The first host that
   * can tell is believed, because all share the origin. Rejects with CacheCallError if none can.
   */
  async exists(wanted: Wanted): Promise<boolean> {
    const { method, request } = findingOf(wanted);
    let last: unknown;
    for (let round = 0; round < ROUNDS; round += 1) {
      if (round > 0) await pause(BETWEEN_ROUNDS_MS * round);
      for (const host of this.hosts.values()) {
        try {
          await host.find(method, request);
          return true;
        } catch (error) {
          if (!(error instanceof CacheCallError)) throw error;
          if (error.code === Code.NOT_FOUND) return false;
          if (error.verdict === 'never') throw error;
          last = error;
        }
      }
    }
    throw last;
  }

  private async deliver(host: string, change: Change): Promise<Acknowledgement> {
    const answer = await this.hosts.get(host)!.invalidate({
      ...change.target,
      changed_at: timestampOf(new Date(change.changedAt)),
      erase: change.erase,
    });
    return {
      host,
      removedCount: Number(answer.removed_count),
      invalidatedAt: dateOf(answer.invalidated_at).toISOString(),
    };
  }
}

/** Refuses what the daemon would always refuse, before it becomes a job. */
export function checked(id: string): string {
  if (!ID.test(id)) throw new RangeError('not an id: [A-Za-z0-9][A-Za-z0-9._-]{0,127}');
  return id;
}

function changeOf(target: Change['target'], { changedAt }: ChangeOptions): Change {
  return { target, changedAt: (changedAt ?? new Date()).toISOString(), erase: false };
}

function findingOf(wanted: Wanted) {
  const common = {
    delivery: 'DELIVERY_NONE',
    ...(wanted.originAfter && { origin_after: timestampOf(wanted.originAfter) }),
  };
  if ('userId' in wanted) {
    const category = categoryOf(wanted.category);
    const request = { ...common, user_id: checked(wanted.userId), category };
    return { method: 'GetHuman', request } as const;
  }
  const request = {
    ...common,
    clothing_id: checked(wanted.clothingId),
    owner_id: wanted.ownerId ? checked(wanted.ownerId) : '',
  };
  return { method: wanted.part === 'text' ? 'GetText' : 'GetGarment', request } as const;
}

function follow(warmed: Warmed, { done, total, failed }: WarmResponse): void {
  Object.assign(warmed, { done, total });
  if (!failed) return;
  const list = failed.reason === 'NO_SUCH_OBJECT' ? warmed.absent : warmed.failed;
  list.push({ ...failed.key, reason: failed.reason });
}
