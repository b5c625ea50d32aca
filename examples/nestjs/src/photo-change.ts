/**
 * In which order is a photo changed, so that no host ever shows the old photo?
 *
 * The time of the change is stored first and is part of every job (`photo_changed_at`): with it
 * a host that missed the invalidation still answers correctly. Every step can be repeated, and
 * `resume` finds unfinished changes, so a process may die at any step.
 */

import { Inject, Injectable } from '@nestjs/common';

import { CacheService } from './cache.service';

/** One change that `recordChange` wrote and `finishChange` has not ended. */
export interface PhotoChangeRecord {
  userId: string;
  changedAt: Date;
}

/** The steps that the backend implements. Each is idempotent. */
export interface PhotoChangeSteps {
  /**
   * Store the photo, then the time of its change by the database's clock in whole
   * milliseconds, later than the last one, and that the change is unfinished: all visible
   * before this resolves.
   */
  recordChange(userId: string): Promise<Date>;
  /** Delete the objects that were prepared from the old photo at the origin. */
  deletePrepared(userId: string): Promise<void>;
  /**
   * Have a worker prepare the photo and Put it with an `as_of` that is not after its reading.
   * `superseded` is its 409 PUT_OUTDATED: a newer photo's change is known already.
   */
  prepare(change: PhotoChangeRecord): Promise<'done' | 'superseded'>;
  /** Only if `changedAt` is still that person's latest change. */
  finishChange(change: PhotoChangeRecord): Promise<void>;
  unfinishedChanges(): Promise<PhotoChangeRecord[]>;
}

export const PHOTO_CHANGE_STEPS = Symbol('PHOTO_CHANGE_STEPS');

@Injectable()
export class PhotoChange {
  constructor(
    @Inject(PHOTO_CHANGE_STEPS) private readonly steps: PhotoChangeSteps,
    private readonly cache: CacheService,
  ) {}

  /** Resolves with the time that every try-on job must carry from now on. */
  async change(userId: string): Promise<Date> {
    const changedAt = await this.steps.recordChange(userId);
    await this.carryOut({ userId, changedAt });
    return changedAt;
  }

  /** Finishes what another process left unfinished. Call it at each start and every few minutes. */
  async resume(): Promise<void> {
    for (const change of await this.steps.unfinishedChanges()) await this.carryOut(change);
  }

  private async carryOut(change: PhotoChangeRecord): Promise<void> {
    await this.steps.deletePrepared(change.userId);
    // Jobs in Redis are enough to go on: until a host has its job, `photo_changed_at` keeps its
    // answers correct.
    await this.cache.invalidateHuman(change.userId, { changedAt: change.changedAt });
    const prepared = await this.steps.prepare(change);
    if (prepared === 'done') await this.steps.finishChange(change);
  }
}

/** The body of the worker's POST /tryon. The worker passes the time as `origin_after`. */
export function tryOnBody(
  person: { userId: string; photoChangedAt: Date },
  garment: { clothingId: string; ownerId: string },
  category = 'upper_body',
) {
  return {
    user_id: person.userId,
    clothing_id: garment.clothingId,
    owner_id: garment.ownerId,
    category,
    photo_changed_at: person.photoChangedAt.toISOString(),
  };
}
