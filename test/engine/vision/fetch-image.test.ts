import assert from 'node:assert/strict';
import type { LookupAddress } from 'node:dns';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { ImageError } from '#engine/vision/errors.ts';
import { type FetchOptions, fetchImage } from '#engine/vision/fetch-image.ts';
import { isPublicAddress } from '#engine/vision/public-address.ts';
import { createPki } from '../../../scripts/cluster/pki.ts';

const at = (...addresses: string[]): LookupAddress[] =>
  addresses.map((address) => ({ address, family: address.includes(':') ? 6 : 4 }));

describe('fetching pictures', () => {
  let folder: string;
  let server: Server;
  let port: number;
  let options: FetchOptions;
  let connections = 0;
  let answer: (request: IncomingMessage, response: ServerResponse) => void = () => {};

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), 'nvlm-fetch-'));
    const pki = await createPki(folder, ['pictures.test', 'other.test', 'a.below.test']);
    server = createServer(
      {
        cert: readFileSync(pki.path('apiserver')),
        key: readFileSync(join(folder, 'apiserver.key')),
      },
      (request, response) => answer(request, response),
    );
    server.on('connection', () => connections++);
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    port = (server.address() as AddressInfo).port;
    options = {
      allowedHosts: ['pictures.test', '*.below.test'],
      maxBytes: 1000,
      timeoutMs: 2000,
      lookup: async () => at('127.0.0.1'),
      isAllowedAddress: (address) => address === '127.0.0.1',
      ca: readFileSync(pki.path('ca'), 'utf8'),
    };
  });
  after(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    rmSync(folder, { recursive: true, force: true });
  });

  const url = (path = '/', host = 'pictures.test'): string => `https://${host}:${port}${path}`;
  const refuses = async (
    address: string,
    told: RegExp,
    more: Partial<FetchOptions> = {},
  ): Promise<void> => {
    await assert.rejects(fetchImage(address, { ...options, ...more }), (error: unknown) => {
      assert.ok(error instanceof ImageError, String(error));
      assert.match(error.message, told);
      return true;
    });
  };

  test('a host that is named is asked, and what it gives is whole', async () => {
    answer = (_, response) => response.end('picture');
    assert.equal(String(await fetchImage(url(), options)), 'picture');
    assert.equal(String(await fetchImage(url('/', 'a.below.test'), options)), 'picture');
  });

  test('other hosts, other schemes, names below and names that only look alike are refused unasked', async () => {
    connections = 0;
    await refuses(url('/', 'other.test'), /other\.test is not one of the hosts/);
    await refuses(url('/', 'below.test'), /not one of the hosts/);
    await refuses(url('/', 'pictures.test.evil.test'), /not one of the hosts/);
    await refuses(url('/', 'evilbelow.test'), /not one of the hosts/);
    await refuses(`http://pictures.test:${port}/`, /https only/);
    await refuses('file:///etc/passwd', /https only/);
    await refuses(`https://me:secret@pictures.test:${port}/`, /name and password/);
    await refuses(`https://pictures.test@other.test:${port}/`, /name and password/);
    assert.equal(connections, 0);
  });

  for (const address of [
    '127.0.0.1',
    '10.1.2.3',
    '172.31.0.1',
    '192.168.1.1',
    '169.254.169.254',
    '100.64.0.1',
    '0.0.0.0',
    '224.0.0.1',
    '255.255.255.255',
    '::1',
    '::',
    'fe80::1',
    'fd00:ec2::254',
    '::ffff:127.0.0.1',
    '::ffff:a9fe:a9fe',
    '64:ff9b::a9fe:a9fe',
    '2002:7f00:1::',
    'ff02::1',
  ]) {
    test(`a name that leads to ${address} is refused unasked`, async () => {
      connections = 0;
      assert.equal(isPublicAddress(address), false);
      await refuses(url(), /not public/, {
        isAllowedAddress: isPublicAddress,
        lookup: async () => at(address),
      });
      // Also as one of several: a resolver may give both.
      await refuses(url(), /not public/, {
        isAllowedAddress: isPublicAddress,
        lookup: async () => at('93.184.216.34', address),
      });
      assert.equal(connections, 0);
    });
  }

  test('an address in place of a name is held to the same', async () => {
    await refuses(`https://127.0.0.1:${port}/`, /not one of the hosts/);
    await refuses(`https://127.0.0.1:${port}/`, /not public/, {
      allowedHosts: ['127.0.0.1'],
      isAllowedAddress: isPublicAddress,
    });
    // Other spellings of 127.0.0.1 are that address once the URL is read.
    for (const spelling of ['2130706433', '0x7f.1', '127.1', '017700000001']) {
      await refuses(`https://${spelling}:${port}/`, /not public/, {
        allowedHosts: ['127.0.0.1'],
        isAllowedAddress: isPublicAddress,
      });
    }
  });

  test('public addresses are public', () => {
    for (const address of ['93.184.216.34', '8.8.8.8', '2606:4700::6810:84e5', '2a00:1450::1']) {
      assert.equal(isPublicAddress(address), true, address);
    }
    assert.equal(isPublicAddress('not an address'), false);
  });

  test('a name that changes its address between look and connection gains nothing', async () => {
    answer = (_, response) => response.end('picture');
    let looks = 0;
    const lookup = async () => at(looks++ === 0 ? '127.0.0.1' : '127.0.0.2');
    assert.equal(String(await fetchImage(url(), { ...options, lookup })), 'picture');
    assert.equal(looks, 1);
    await refuses(url(), /not public/, { lookup });
  });

  test('redirects are held to the same: host, scheme, address, and their number', async () => {
    const to = (location: string) => {
      answer = ({ url: path }, response) => {
        if (path === '/end') response.end('picture');
        else response.writeHead(302, { location }).end();
      };
    };
    to('/end');
    assert.equal(String(await fetchImage(url(), options)), 'picture');
    to(url('/end', 'other.test'));
    await refuses(url(), /other\.test is not one of the hosts/);
    to('http://pictures.test/end');
    await refuses(url(), /https only/);
    to('/again');
    await refuses(url(), /more than 3 times/);
    to(url('/end'));
    let looks = 0;
    await refuses(url(), /not public/, {
      lookup: async () => at(looks++ === 0 ? '127.0.0.1' : '10.0.0.1'),
    });
  });

  test('a file that is too large is cut off, told or not', async () => {
    answer = (_, response) => response.writeHead(200, { 'content-length': '5000' }).end('x');
    await refuses(url(), /more than 1000 bytes/);
    answer = (_, response) => {
      const timer = setInterval(() => response.write('x'.repeat(300)), 5);
      response.on('close', () => clearInterval(timer));
    };
    await refuses(url(), /more than 1000 bytes/);
  });

  test('a host that is slow, fails, breaks off or has another certificate is told', async () => {
    answer = () => {};
    await refuses(url(), /within 200 ms/, { timeoutMs: 200 });
    answer = (_, response) => response.write('half');
    await refuses(url(), /within 200 ms/, { timeoutMs: 200 });
    answer = (_, response) => response.writeHead(404).end();
    await refuses(url(), /answered 404/);
    answer = (_, response) => {
      response.writeHead(200, { 'content-length': '10' }).write('abc');
      setTimeout(() => response.destroy(), 20);
    };
    await refuses(url(), /cannot be reached/);
    await refuses(url('/', 'b.below.test'), /cannot be reached/);
    await refuses(url(), /has no address/, {
      lookup: async () => {
        throw new Error('ENOTFOUND');
      },
    });
  });
});
