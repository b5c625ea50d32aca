/** The real daemon, with a TLS port that it takes for one beyond loopback. */

import type { ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

import * as grpc from '@grpc/grpc-js';

import { loadService, PROTO_FILE } from '../../src/host-client';
import { timestampOf } from '../../src/messages';
import type { HostOptions, TlsFiles } from '../../src';
import { garmentBlob, personBlob } from './entries';
import { end, freePort, start, tail, until } from './processes';

const ROOT = resolve(__dirname, '../../../../..');
const PYTHON = process.env.PYTHON ?? join(ROOT, '.venv/bin/python');
/** Nothing leaves the host by it, and to daemon and client it is no loopback address. */
const BEYOND = '127.0.0.2';
const SERVICE = loadService(PROTO_FILE);
/** The daemon takes messages of at most 2 MiB. */
const CHUNK_BYTES = 1 << 20;

export type Role = 'worker' | 'backend' | 'observer' | 'admin';

export interface Access {
  certificates?: Record<string, Role[]>;
  tokens?: Record<string, Role[]>;
}

export class Daemon {
  address = '';
  readonly folder = mkdtempSync(join(tmpdir(), 'cachesvc-nest-'));
  private readonly runtime = mkdtempSync('/dev/shm/cachesvc-nest-');
  private readonly log = join(this.folder, 'log');
  private process: ChildProcess | undefined;
  private worker: grpc.Client | undefined;

  constructor(
    readonly name: string,
    private readonly tls: Required<TlsFiles>,
    private readonly demandCertificates: boolean,
    access: Access,
  ) {
    mkdirSync(join(this.folder, 'origin'));
    this.allow(access);
  }

  get host(): HostOptions {
    return { name: this.name, address: this.address };
  }

  /** What a program on that host connects to. */
  get target(): string {
    return `unix:${this.runtime}/cachesvc.sock`;
  }

  /** Replaces the list of who may call; it counts at once. */
  allow({ certificates = {}, tokens = {} }: Access): void {
    const lines = ['[certificates]'];
    for (const [name, roles] of Object.entries(certificates)) {
      lines.push(`"${name}" = ${JSON.stringify(roles)}`);
    }
    for (const [token, roles] of Object.entries(tokens)) {
      const sha256 = createHash('sha256').update(token).digest('hex');
      lines.push('[[tokens]]', `name = "${sha256.slice(0, 6)}"`, `sha256 = "${sha256}"`);
      lines.push(`roles = ${JSON.stringify(roles)}`);
    }
    writeFileSync(this.path('access.new'), `${lines.join('\n')}\n`);
    renameSync(this.path('access.new'), this.path('access.toml'));
  }

  /** At the same address each time. */
  async start(): Promise<this> {
    this.address ||= `${BEYOND}:${await freePort(BEYOND)}`;
    this.process = start([PYTHON, '-m', 'cachesvc', 'serve'], this.log, this.environment());
    this.worker = new grpc.Client(this.target, insecure(), {
      'grpc.initial_reconnect_backoff_ms': 50,
      'grpc.max_reconnect_backoff_ms': 100,
      'grpc.use_local_subchannel_pool': 1,
    });
    const ready = (resolved: (done: boolean) => void) =>
      this.worker!.waitForReady(Date.now() + 60_000, (error) => resolved(!error));
    if (!(await new Promise(ready))) throw new Error(`${this.name}: ${tail(this.log)}`);
    await until(() => this.serves(), `${this.name}: ${tail(this.log)}`);
    return this;
  }

  /** A host that is down. In order: after a crash a daemon takes no Put that is older. */
  async stop(): Promise<void> {
    this.worker?.close();
    if (this.process) await end(this.process, 'SIGTERM');
    this.process = undefined;
  }

  async close(): Promise<void> {
    await this.stop();
    for (const folder of [this.folder, this.runtime]) rmSync(folder, { recursive: true });
  }

  // ---- what a worker on that host does

  /** `persist`: at the origin too. */
  async putPerson(userId: string, asOf: Date, { persist = false } = {}): Promise<void> {
    const key = { namespace: 'human_upper_body', id: userId };
    await this.put({ key, owner_id: userId, as_of: timestampOf(asOf), persist }, personBlob());
  }

  async putGarment(clothingId: string, ownerId: string, asOf: Date, side?: number): Promise<void> {
    const key = { namespace: 'garment', id: clothingId };
    await this.put({ key, owner_id: ownerId, as_of: timestampOf(asOf) }, garmentBlob(side));
  }

  /** Whether any tier holds it. */
  async holds(namespace: string, id: string): Promise<boolean> {
    const answer = await this.call<{ tiers: unknown[] }>('Inspect', { key: { namespace, id } });
    return answer.tiers.length > 0;
  }

  private put(header: object, blob: Buffer): Promise<void> {
    const { path, requestSerialize, responseDeserialize } = method('Put');
    return new Promise((resolved, rejected) => {
      const call = this.worker!.makeClientStreamRequest(
        path,
        requestSerialize,
        responseDeserialize,
        (error) => (error ? rejected(error) : resolved()),
      );
      call.write({ header });
      for (let at = 0; at < blob.length; at += CHUNK_BYTES) {
        call.write({ data: blob.subarray(at, at + CHUNK_BYTES) });
      }
      call.end();
    });
  }

  private call<Answer>(name: string, request: object): Promise<Answer> {
    const { path, requestSerialize, responseDeserialize } = method(name);
    return new Promise((resolved, rejected) => {
      this.worker!.makeUnaryRequest(path, requestSerialize, responseDeserialize, request, (e, a) =>
        e ? rejected(e) : resolved(a as Answer),
      );
    });
  }

  private async serves(): Promise<boolean> {
    return this.call('Stats', {}).then(
      () => true,
      () => false,
    );
  }

  private environment(): NodeJS.ProcessEnv {
    const inherited = Object.entries(process.env).filter(([name]) => !/^(CACHESVC|AWS)_/.test(name));
    return {
      ...Object.fromEntries(inherited),
      PYTHONPATH: `${ROOT}:${join(ROOT, 'client')}`,
      CACHESVC_RUNTIME_DIR: this.runtime,
      CACHESVC_STATE_DIR: this.path('state'),
      CACHESVC_L1__MAX_BYTES: String(64 << 20),
      CACHESVC_L2__ROOT: this.path('l2'),
      CACHESVC_L2__FREE_FLOOR_BYTES: '0',
      CACHESVC_ORIGIN__KIND: 'directory',
      CACHESVC_ORIGIN__PATH: this.path('origin'),
      CACHESVC_HTTP__LISTEN: '',
      CACHESVC_GRPC__LISTEN: this.address,
      CACHESVC_GRPC__TLS__CERT_FILE: this.tls.certFile,
      CACHESVC_GRPC__TLS__KEY_FILE: this.tls.keyFile,
      ...(this.demandCertificates && { CACHESVC_GRPC__TLS__CLIENT_CA_FILE: this.tls.caFile }),
      CACHESVC_ACCESS__FILE: this.path('access.toml'),
    };
  }

  private path(name: string): string {
    return join(this.folder, name);
  }
}

function method(name: string): grpc.MethodDefinition<object, object> {
  return SERVICE.service[name] as grpc.MethodDefinition<object, object>;
}

function insecure(): grpc.ChannelCredentials {
  return grpc.credentials.createInsecure();
}
