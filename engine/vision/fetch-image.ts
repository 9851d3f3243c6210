/** Fetches pictures from hosts that the operator of the server named, and from nowhere else. */
import { type LookupAddress, lookup as systemLookup } from 'node:dns';
import type { IncomingMessage } from 'node:http';
import { get } from 'node:https';
import { isIP } from 'node:net';
import { ImageError } from './errors.ts';
import { isPublicAddress } from './public-address.ts';

export interface FetchOptions {
  /** `example.com`, or `*.example.com` for all names below it. */
  readonly allowedHosts: readonly string[];
  readonly maxBytes: number;
  /** For the whole of it, redirects included. */
  readonly timeoutMs: number;
  /** All addresses of a name; the system's resolver by default. */
  readonly lookup?: (hostname: string) => Promise<readonly LookupAddress[]>;
  /** Default: of the public internet. */
  readonly isAllowedAddress?: (address: string) => boolean;
  /** More authorities for TLS. */
  readonly ca?: string;
}

const MAX_REDIRECTS = 3;
const REDIRECTS: ReadonlySet<number> = new Set([301, 302, 303, 307, 308]);

const resolve = (hostname: string): Promise<readonly LookupAddress[]> =>
  new Promise((done, fail) => {
    systemLookup(hostname, { all: true }, (error, addresses) =>
      error ? fail(error) : done(addresses),
    );
  });

/**
 * Only https; every name of a chain of redirects must be allowed; a name is looked up once for each connection, all its
 * addresses must be public, and the connection goes to one of those that were looked at. Throws ImageError.
 */
export async function fetchImage(address: string, options: FetchOptions): Promise<Buffer> {
  const timeout = AbortSignal.timeout(options.timeoutMs);
  let url = parse(address);
  for (let redirects = 0; redirects <= MAX_REDIRECTS; redirects++) {
    const response = await request(url, options, timeout);
    if (!REDIRECTS.has(response.statusCode ?? 0))
      return await read(response, url, options, timeout);
    response.destroy();
    const { location } = response.headers;
    if (location === undefined) throw new ImageError(`${url.host} redirects to nowhere`);
    url = parse(new URL(location, url).href);
  }
  throw new ImageError(`${url.host} redirects more than ${MAX_REDIRECTS} times`);
}

function parse(address: string): URL {
  const url = URL.canParse(address) ? new URL(address) : undefined;
  if (url?.protocol !== 'https:') throw new ImageError('pictures are fetched over https only');
  if (url.username !== '' || url.password !== '') {
    throw new ImageError('the URL of a picture must not hold a name and password');
  }
  return url;
}

const isNamed = (hostname: string, allowed: string): boolean =>
  allowed.startsWith('*.') ? hostname.endsWith(allowed.slice(1)) : hostname === allowed;

/** The addresses to connect to. */
async function resolveAllowed(
  { hostname }: URL,
  { allowedHosts, lookup = resolve, isAllowedAddress = isPublicAddress }: FetchOptions,
): Promise<readonly LookupAddress[]> {
  if (!allowedHosts.some((allowed) => isNamed(hostname, allowed.toLowerCase()))) {
    throw new ImageError(`${hostname} is not one of the hosts that pictures are fetched from`);
  }
  const literal = hostname.replace(/^\[|\]$/g, '');
  const family = isIP(literal);
  const addresses =
    family > 0
      ? [{ address: literal, family }]
      : await lookup(hostname).catch(() => {
          throw new ImageError(`${hostname} has no address`);
        });
  if (addresses.length === 0) throw new ImageError(`${hostname} has no address`);
  // One inside is enough to refuse: which of them a connection takes is not ours to say.
  if (!addresses.every(({ address }) => isAllowedAddress(address))) {
    throw new ImageError(`${hostname} leads to an address that is not public`);
  }
  return addresses;
}

async function request(
  url: URL,
  options: FetchOptions,
  timeout: AbortSignal,
): Promise<IncomingMessage> {
  const addresses = await resolveAllowed(url, options);
  return new Promise((done, fail) => {
    const sent = get(
      url,
      {
        agent: false,
        signal: timeout,
        headers: { accept: 'image/*', 'user-agent': 'nvlm' },
        ...(options.ca !== undefined && { ca: options.ca }),
        // What was looked at, not a second answer of the resolver.
        lookup: (_hostname, wanted, callback) => {
          if (typeof wanted === 'object' && wanted.all) callback(null, [...addresses]);
          else callback(null, addresses[0]!.address, addresses[0]!.family);
        },
      },
      done,
    );
    sent.on('error', (cause) => fail(failure(url, cause, options, timeout)));
  });
}

function failure(
  { host }: URL,
  cause: unknown,
  { timeoutMs }: FetchOptions,
  timeout: AbortSignal,
): ImageError {
  if (cause instanceof ImageError) return cause;
  if (timeout.aborted) return new ImageError(`${host} gave no picture within ${timeoutMs} ms`);
  const { code } = cause as { code?: string };
  return new ImageError(`${host} cannot be reached${code === undefined ? '' : ` (${code})`}`);
}

async function read(
  response: IncomingMessage,
  url: URL,
  options: FetchOptions,
  timeout: AbortSignal,
): Promise<Buffer> {
  const { maxBytes } = options;
  const chunks: Buffer[] = [];
  let length = 0;
  try {
    if (response.statusCode !== 200) {
      throw new ImageError(`${url.host} answered ${response.statusCode}`);
    }
    const tooLarge = `the file of ${url.host} has more than ${maxBytes} bytes`;
    if (Number(response.headers['content-length']) > maxBytes) throw new ImageError(tooLarge);
    for await (const chunk of response as AsyncIterable<Buffer>) {
      length += chunk.length;
      if (length > maxBytes) throw new ImageError(tooLarge);
      chunks.push(chunk);
    }
  } catch (cause) {
    response.destroy();
    throw failure(url, cause, options, timeout);
  }
  return Buffer.concat(chunks);
}
