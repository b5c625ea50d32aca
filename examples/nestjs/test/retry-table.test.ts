/** Is the retry table about the daemon's errors, all of them? */

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

import { Metadata, status as Code } from '@grpc/grpc-js';

import { BY_CODE, BY_REASON, CacheCallError, verdictOn } from '../src';

const ERRORS = readFileSync(join(__dirname, '../../../../docs/errors.md'), 'utf8');

test('every status has a verdict', () => {
  const codes = Object.values(Code).filter((code) => typeof code === 'number');
  assert.equal(codes.length, 17);
  for (const code of codes) assert.ok(BY_CODE[code as Code], Code[code as Code]);
});

test('every reason of the table is one that the daemon has', () => {
  for (const reason of Object.keys(BY_REASON)) {
    assert.match(ERRORS, new RegExp(`\\b${reason}\\b`), reason);
  }
});

test('no failure of the daemon or of its origin ends an invalidation', () => {
  for (const [code, reason] of [
    [Code.UNAVAILABLE, ''],
    [Code.UNAVAILABLE, 'DRAINING'],
    [Code.UNAVAILABLE, 'NOT_DURABLE'],
    [Code.DEADLINE_EXCEEDED, ''],
    [Code.RESOURCE_EXHAUSTED, 'OVERLOADED'],
    [Code.ABORTED, 'ERASED'],
  ] as const) {
    assert.equal(verdictOn(code, reason), 'soon', `${Code[code]} ${reason}`);
  }
  for (const code of [Code.UNAUTHENTICATED, Code.PERMISSION_DENIED, Code.INTERNAL]) {
    assert.equal(verdictOn(code, ''), 'slowly');
  }
});

test('the reason is read from the trailing metadata', () => {
  const metadata = new Metadata();
  metadata.set('cachesvc-reason', 'INVALID_ID');
  const error = Object.assign(new Error(), {
    code: Code.INVALID_ARGUMENT,
    details: 'user_id',
    metadata,
  });
  const read = CacheCallError.from('gpu1', error);
  assert.deepEqual([read.host, read.reason, read.verdict], ['gpu1', 'INVALID_ID', 'never']);
});
