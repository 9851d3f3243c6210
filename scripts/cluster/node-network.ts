/**
 * Addresses of a real node: a /24 of 10.249.0.0/16 behind a pair of virtual interfaces, one on this host, one in the node's network
 * namespace. Nothing else of the host's network changes, and both go with the namespace.
 */
import { spawnSync } from 'node:child_process';
import { command } from './processes.ts';
import type { ClusterFolder } from './state.ts';

export interface NodeNetwork {
  /** The end that the node takes into its namespace. */
  readonly peer: string;
  /** Of this host, as the node sees it; with it go pods' requests to the API server. */
  readonly hostAddress: string;
  readonly nodeAddress: string;
  readonly podCidr: string;
  readonly serviceCidr: string;
}

let made = 0;

/** The interfaces are made at once; the first /24 without a route is taken. Needs root. */
export function claimNodeNetwork(folder: ClusterFolder): NodeNetwork {
  const name = `nvlm${process.pid}${String.fromCharCode(97 + (made++ % 26))}`;
  const peer = `${name}p`;
  folder.addInterface(name);
  ip('link', 'add', name, 'type', 'veth', 'peer', 'name', peer);
  ip('link', 'set', name, 'up');
  for (let third = 1; third < 255; third++) {
    const base = `10.249.${third}`;
    // Adding a route fails when there is one: that is the claim.
    const claim = spawnSync('ip', ['route', 'add', `${base}.0/24`, 'dev', name]);
    if (claim.status !== 0) continue;
    ip('address', 'add', `${base}.1/30`, 'dev', name);
    ip('route', 'replace', `${base}.0/24`, 'via', `${base}.2`, 'dev', name);
    return {
      peer,
      hostAddress: `${base}.1`,
      nodeAddress: `${base}.2`,
      serviceCidr: `${base}.64/26`,
      podCidr: `${base}.128/25`,
    };
  }
  throw new Error('Every subnet of 10.249.0.0/16 has a route');
}

/** Throws with what the command said. */
export function ip(...args: readonly string[]): void {
  command('ip', ...args);
}
