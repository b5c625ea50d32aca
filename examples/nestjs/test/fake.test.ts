/** Can an application be tested without Redis and daemons, with the provider that we give it? */

import 'reflect-metadata';

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Inject, Injectable, Module } from '@nestjs/common';
import { NestFactory } from '@nestjs/core';

import { CacheService, FakeCache, fakeCache } from '../src';

@Injectable()
class Wardrobe {
  constructor(@Inject(CacheService) private readonly cache: CacheService) {}

  async edit(clothingId: string): Promise<void> {
    await this.cache.invalidateGarment(clothingId);
  }
}

test('an application gets the fake where it asks for the service', async () => {
  const fake = new FakeCache();

  @Module({ providers: [fakeCache(fake), Wardrobe] })
  class App {}

  const app = await NestFactory.createApplicationContext(App, { logger: false });
  await app.get(Wardrobe).edit('coat');
  await assert.rejects(app.get(Wardrobe).edit('../coat'), RangeError);
  await app.close();
  assert.deepEqual(fake.changes.map(({ target }) => target), [{ clothing_id: 'coat' }]);
});

test('the fake finds what it was told is there, and fails when it was told to', async () => {
  const fake = new FakeCache();
  fake.present.add('ann');
  assert.equal(await fake.exists({ userId: 'ann', category: 'dresses' }), true);
  assert.equal(await fake.exists({ userId: 'bob', category: 'dresses' }), false);
  fake.failure = new Error('away');
  await assert.rejects(fake.deleteAccount('ann'), /away/);
  assert.deepEqual(fake.changes, []);
});

test('a receipt of the fake is acknowledged', async () => {
  const fake = new FakeCache();
  const changedAt = new Date('2026-01-31T12:00:00Z');
  const receipt = await fake.invalidateHuman('ann', { changedAt });
  assert.deepEqual(await fake.acknowledged(receipt), [
    { host: 'fake', removedCount: 0, invalidatedAt: '2026-01-31T12:00:00.000Z' },
  ]);
});
