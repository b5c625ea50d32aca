/** Where do the certificates of a test come from? A CA of its own, made by openssl. */

import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import type { TlsFiles } from '../../src';

// A CA without a critical keyUsage is refused by strict verifiers.
const CA = ['basicConstraints=critical,CA:TRUE,pathlen:0', 'keyUsage=critical,keyCertSign,cRLSign'];
const LEAF = 'basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n';
const EC = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes'];

export class Authority {
  readonly caFile: string;

  constructor(
    private readonly folder: string,
    private readonly name: string,
  ) {
    this.caFile = this.path('ca.pem');
    const files = ['-keyout', this.path('ca.key'), '-out', this.caFile];
    const extensions = CA.flatMap((extension) => ['-addext', extension]);
    openssl('req', '-x509', ...EC, ...extensions, '-days', '1', '-subj', `/CN=${name}`, ...files);
  }

  /** A certificate for `names`, such as `DNS:backend.example` or `IP:127.0.0.2`. */
  issue(file: string, names: string): Required<TlsFiles> {
    const [key, request, cert] = ['key', 'csr', 'pem'].map((kind) => this.path(`${file}.${kind}`));
    const extensions = this.path(`${file}.ext`);
    writeFileSync(extensions, `subjectAltName=${names}\n${LEAF}`);
    openssl('req', ...EC, '-subj', `/CN=${file}`, '-keyout', key!, '-out', request!);
    const signing = ['-CA', this.caFile, '-CAkey', this.path('ca.key'), '-days', '1'];
    openssl('x509', '-req', '-in', request!, ...signing, '-out', cert!, '-extfile', extensions);
    return { caFile: this.caFile, certFile: cert!, keyFile: key! };
  }

  private path(file: string): string {
    return join(this.folder, `${this.name}-${file}`);
  }
}

function openssl(...words: string[]): void {
  execFileSync('openssl', words, { stdio: 'pipe' });
}
