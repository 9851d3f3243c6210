/** Addresses on this host that a cluster's fake pods and its own servers have: a /24 of 10.250.0.0/16, claimed by one test process. */
import { spawnSync } from 'node:child_process';
import { createServer, type Server } from 'node:net';

export interface Subnet {
  /** Of KWOK's pods. */
  readonly podCidr: string;
  /** Not loopback: EndpointSlices may name it. */
  readonly hostAddress: string;
  release(): Promise<void>;
}

/** Whether addresses can be made local on this machine; else why not. */
export function missingForSubnets(): string | undefined {
  if (process.getuid?.() !== 0) return 'root, to give fake pods addresses on this host';
  const result = spawnSync('ip', ['route', 'replace', 'local', '10.250.0.0/16', 'dev', 'lo']);
  return result.status === 0 ? undefined : 'the ip command and the right to add routes';
}

const listen = (address: string): Promise<Server> =>
  new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(1, address, () => resolve(server));
  });

/** The first /24 that no other process holds: the claim is a listening socket, so that it ends with the process. */
export async function claimSubnet(): Promise<Subnet> {
  const missing = missingForSubnets();
  if (missing !== undefined) throw new Error(`This test needs ${missing}`);
  for (let third = 1; third < 255; third++) {
    const hostAddress = `10.250.${third}.254`;
    const claim = await listen(hostAddress).catch(() => undefined);
    if (claim === undefined) continue;
    claim.unref();
    return {
      podCidr: `10.250.${third}.1/24`,
      hostAddress,
      release: () => new Promise((resolve) => claim.close(() => resolve())),
    };
  }
  throw new Error('Every subnet of 10.250.0.0/16 is claimed');
}
