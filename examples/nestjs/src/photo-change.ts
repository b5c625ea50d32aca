/**
 * In which order is a photo changed, so that no host ever shows the old one?
 *
 * The time of the change comes first and goes along everywhere: a host that meets it in a job
 * (`photo_changed_at`) is right by that alone. Every step can be repeated, and what was begun
 * is found again by `resume`: nothing depends on a process living to the end.
 */

import { Inject, Injectable } from '@nestjs/common';

import { CacheService } from './cache.service';

/** One change that `recordChange` wrote and `finishChange` has not ended. */
export interface PhotoChangeRecord {
  userId: string;
  changedAt: Date;
}

/** What is the backend's own. Each step is idempotent. */
export interface PhotoChangeSteps {
  /**
   * Store the photo, then the time of its change by the database's clock in whole
   * milliseconds, later than the last one, and that the change is unfinished: all visible
   * before this resolves.
   */
  recordChange(userId: string): Promise<Date>;
  /** Delete what was prepared of the old photo at the origin. */
  deletePrepared(userId: string): Promise<void>;
  /**
   * Have a worker prepare the photo and Put it with an `as_of` that is not after its reading.
   * `superseded` is its 409 PUT_OUTDATED: a newer photo's change is known already.
   */
  prepare(change: PhotoChangeRecord): Promise<'done' | 'superseded'>;
  /** Only where `changedAt` is still that person's latest. */
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

  /** Resolves with the time that belongs into every try-on job from now on. */
  async change(userId: string): Promise<Date> {
    const changedAt = await this.steps.recordChange(userId);
    await this.carryOut({ userId, changedAt });
    return changedAt;
  }

  /** At each start, and every few minutes: what another process left unfinished. */
  async resume(): Promise<void> {
    for (const change of await this.steps.unfinishedChanges()) await this.carryOut(change);
  }

  private async carryOut(change: PhotoChangeRecord): Promise<void> {
    await this.steps.deletePrepared(change.userId);
    // In Redis is enough to go on: a host that hears of it later is kept right by
    // `photo_changed_at` until then.
    await this.cache.invalidateHuman(change.userId, { changedAt: change.changedAt });
    const prepared = await this.steps.prepare(change);
    if (prepared === 'done') await this.steps.finishChange(change);
  }
}

/** The body of the worker's POST /tryon, which passes the time on as `origin_after`. */
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
