/** How is one daemon called? With a deadline on each call, and today's credentials. */

import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';

import * as grpc from '@grpc/grpc-js';
import { loadSync } from '@grpc/proto-loader';

import { CacheCallError } from './cache-call-error';
import type { InvalidateRequest, InvalidateResponse, WarmRequest, WarmResponse } from './messages';
import { checkOneHost, lookupAll, type Lookup } from './one-host';
import {
  DEFAULT_CALL_TIMEOUT_MS,
  DEFAULT_WARM_TIMEOUT_MS,
  type CacheOptions,
  type HostOptions,
  type TlsFiles,
} from './options';

/** This repository's file. A backend elsewhere copies the file and sets `protoFile`. */
export const PROTO_FILE = join(__dirname, '../../../../proto/cachesvc/v1/cache.proto');

const CHANNEL: grpc.ChannelOptions = {
  // A host that is back is found within seconds instead of two minutes.
  'grpc.initial_reconnect_backoff_ms': 200,
  'grpc.max_reconnect_backoff_ms': 5_000,
  // The connection to a host that vanished silently is given up after 35 s. The daemon
  // refuses pings that come more often than every 20 s.
  'grpc.keepalive_time_ms': 30_000,
  'grpc.keepalive_timeout_ms': 5_000,
  'grpc.keepalive_permit_without_calls': 1,
};

export class HostClient {
  readonly name: string;
  private readonly service: grpc.ServiceClientConstructor;
  private connection: { client: grpc.Client; files: string } | undefined;

  constructor(
    private readonly host: HostOptions,
    private readonly options: CacheOptions,
    private readonly look: Lookup = lookupAll,
  ) {
    this.name = host.name;
    this.service = loadService(options.protoFile ?? PROTO_FILE);
  }

  /** Rejects with CacheCallError, also if the address leads to several hosts. */
  async invalidate(request: InvalidateRequest): Promise<InvalidateResponse> {
    await checkOneHost(this.host, this.look);
    return this.unary('Invalidate', request);
  }

  /** `request.delivery` should be DELIVERY_NONE: the role `backend` reads no bytes. */
  find(method: 'GetHuman' | 'GetGarment' | 'GetText', request: object): Promise<unknown> {
    return this.unary(method, request);
  }

  /** The last progress, and every key that failed. If the deadline passes, the daemon goes on. */
  async warm(request: WarmRequest, onProgress: (step: WarmResponse) => void): Promise<void> {
    const timeoutMs = this.options.warmTimeoutMs ?? DEFAULT_WARM_TIMEOUT_MS;
    await new Promise<void>((resolve, reject) => {
      const { path, requestSerialize, responseDeserialize } = this.method('Warm');
      const call = this.client().makeServerStreamRequest(
        path,
        requestSerialize,
        responseDeserialize,
        request,
        this.metadata(),
        { deadline: Date.now() + timeoutMs },
      );
      call.on('data', onProgress);
      call.on('end', resolve);
      call.on('error', (error: grpc.ServiceError) => reject(CacheCallError.from(this.name, error)));
    });
  }

  close(): void {
    this.connection?.client.close();
    this.connection = undefined;
  }

  private unary<Answer>(name: string, request: object): Promise<Answer> {
    const timeoutMs = this.options.callTimeoutMs ?? DEFAULT_CALL_TIMEOUT_MS;
    const { path, requestSerialize, responseDeserialize } = this.method(name);
    return new Promise<Answer>((resolve, reject) => {
      this.client().makeUnaryRequest(
        path,
        requestSerialize,
        responseDeserialize as (bytes: Buffer) => Answer,
        request,
        this.metadata(),
        { deadline: Date.now() + timeoutMs },
        (error, answer) => {
          if (error) reject(CacheCallError.from(this.name, error));
          else resolve(answer as Answer);
        },
      );
    });
  }

  private method(name: string): grpc.MethodDefinition<object, object> {
    return this.service.service[name] as grpc.MethodDefinition<object, object>;
  }

  private metadata(): grpc.Metadata {
    const metadata = new grpc.Metadata();
    if (this.options.token) metadata.set('authorization', `Bearer ${this.options.token()}`);
    return metadata;
  }

  /** A connection keeps its certificate, so new files need a new connection. */
  private client(): grpc.Client {
    const files = versionsOf(this.options.tls);
    if (this.connection?.files !== files) {
      this.close();
      const client = new grpc.Client(this.host.address, this.credentials(), {
        ...CHANNEL,
        ...(this.host.serverName && {
          'grpc.ssl_target_name_override': this.host.serverName,
          'grpc.default_authority': this.host.serverName,
        }),
      });
      this.connection = { client, files };
    }
    return this.connection!.client;
  }

  private credentials(): grpc.ChannelCredentials {
    const { tls } = this.options;
    if (!tls || this.host.address.startsWith('unix:')) return grpc.credentials.createInsecure();
    const own = tls.certFile && tls.keyFile;
    return grpc.credentials.createSsl(
      readFileSync(tls.caFile),
      own ? readFileSync(tls.keyFile!) : null,
      own ? readFileSync(tls.certFile!) : null,
    );
  }
}

export function loadService(protoFile: string): grpc.ServiceClientConstructor {
  const definition = loadSync(protoFile, {
    keepCase: true, // the proto's names, as everywhere else
    longs: String, // generations have more digits than a number
    enums: String,
    defaults: true,
  });
  // eslint-disable-next-line -- the loader's type knows packages only as any depth of objects
  const root = grpc.loadPackageDefinition(definition) as any;
  return root.cachesvc.v1.CacheService as grpc.ServiceClientConstructor;
}

function versionsOf(tls: TlsFiles | undefined): string {
  const files = [tls?.caFile, tls?.certFile, tls?.keyFile].filter((file) => file !== undefined);
  return files.map((file) => `${statSync(file).ino} ${statSync(file).mtimeMs}`).join('; ');
}
