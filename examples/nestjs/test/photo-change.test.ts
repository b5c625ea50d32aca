/** Is the old photo out of reach after every failure between two steps? */

import 'reflect-metadata';

import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  FakeCache,
  PhotoChange,
  tryOnBody,
  type CacheService,
  type PhotoChangeRecord,
  type PhotoChangeSteps,
} from '../src';

type Step = 'recordChange' | 'deletePrepared' | 'prepare' | 'finishChange';

/** A database, an origin and a worker in memory; dies before or after a step when told to. */
class Shop implements PhotoChangeSteps {
  readonly did: string[] = [];
  unfinished: PhotoChangeRecord[] = [];
  superseded = false;
  dies: { at: Step; when: 'before' | 'after' } | undefined;
  private clock = Date.UTC(2026, 0, 1);

  constructor(readonly cache: FakeCache) {}

  recordChange(userId: string): Promise<Date> {
    return this.step('recordChange', () => {
      this.clock += 1000;
      const change = { userId, changedAt: new Date(this.clock) };
      this.unfinished = [...this.unfinished.filter((one) => one.userId !== userId), change];
      return change.changedAt;
    });
  }

  deletePrepared(): Promise<void> {
    return this.step('deletePrepared', () => undefined);
  }

  prepare(): Promise<'done' | 'superseded'> {
    return this.step('prepare', () => (this.superseded ? 'superseded' : 'done'));
  }

  finishChange({ userId, changedAt }: PhotoChangeRecord): Promise<void> {
    return this.step('finishChange', () => {
      this.unfinished = this.unfinished.filter(
        (one) => one.userId !== userId || one.changedAt > changedAt,
      );
    });
  }

  async unfinishedChanges(): Promise<PhotoChangeRecord[]> {
    return [...this.unfinished];
  }

  private async step<T>(name: Step, act: () => T): Promise<T> {
    const dies = this.dies?.at === name ? this.dies.when : undefined;
    if (dies === 'before') throw new Error(`died before ${name}`);
    const result = act();
    this.did.push(name);
    if (dies === 'after') throw new Error(`died after ${name}`);
    return result;
  }
}

function setUp() {
  const cache = new FakeCache();
  const shop = new Shop(cache);
  return { cache, shop, photos: new PhotoChange(shop, cache as unknown as CacheService) };
}

test('the time is written first, and the photo is prepared after the invalidation', async () => {
  const { cache, shop, photos } = setUp();
  let changesAtPreparation = 0;
  const prepare = shop.prepare.bind(shop);
  shop.prepare = () => {
    changesAtPreparation = cache.changes.length;
    return prepare();
  };
  const changedAt = await photos.change('ann');
  assert.deepEqual(shop.did, ['recordChange', 'deletePrepared', 'prepare', 'finishChange']);
  assert.equal(changesAtPreparation, 1);
  assert.deepEqual(cache.changes, [
    { target: { user_id: 'ann' }, changedAt: changedAt.toISOString(), erase: false },
  ]);
  assert.deepEqual(shop.unfinished, []);
});

const steps: Step[] = ['recordChange', 'deletePrepared', 'prepare', 'finishChange'];
const deaths = steps.flatMap((at) => [
  { at, when: 'before' as const },
  { at, when: 'after' as const },
]);

for (const death of deaths) {
  test(`a death ${death.when} ${death.at} is made good by the next process`, async () => {
    const { cache, shop, photos } = setUp();
    shop.dies = death;
    await assert.rejects(photos.change('ann'));
    shop.dies = undefined;
    await photos.resume();
    const wasRecorded = death.at !== 'recordChange' || death.when === 'after';
    assert.equal(cache.changes.length > 0, wasRecorded);
    assert.equal(shop.did.includes('prepare'), wasRecorded);
    // Delivered twice or not, it says the same time.
    assert.ok(new Set(cache.changes.map(({ changedAt }) => changedAt)).size <= 1);
    assert.deepEqual(shop.unfinished, []);
  });
}

test('while Redis is away nothing is prepared, and the change stays unfinished', async () => {
  const { cache, shop, photos } = setUp();
  cache.failure = new Error('redis is away');
  await assert.rejects(photos.change('ann'), /redis is away/);
  assert.equal(shop.did.includes('prepare'), false);
  assert.equal(shop.unfinished.length, 1);
  cache.failure = undefined;
  await photos.resume();
  assert.equal(cache.changes.length, 1);
  assert.deepEqual(shop.unfinished, []);
});

test('a preparation that lost to a newer change does not end that one', async () => {
  const { shop, photos } = setUp();
  shop.superseded = true;
  await photos.change('ann');
  assert.equal(shop.unfinished.length, 1);
});

test('a try-on job carries the time of the photo that it may show', () => {
  const photoChangedAt = new Date('2026-01-31T12:00:00.123Z');
  const body = tryOnBody({ userId: 'ann', photoChangedAt }, { clothingId: 'coat', ownerId: 'bob' });
  assert.equal(body.photo_changed_at, '2026-01-31T12:00:00.123Z');
  assert.equal(body.owner_id, 'bob');
});
