/** Why tests on a real control plane or a real node are skipped, or false. Under CI nothing is skipped: what is missing fails the test. */
import { findGo } from '../../../scripts/cluster/build.mjs';
import { missingForNode } from '../../../scripts/cluster/node-requirements.ts';
import { missingForSubnets } from './subnet.ts';

export function noCluster(): string | false {
  if (process.env.CI) return false;
  if (findGo() === undefined)
    return 'no Go to build the control plane with; install Go 1.25 or later';
  const missing = missingForSubnets();
  return missing === undefined ? false : `fake pods need ${missing}`;
}

/** Without root there is no node, under CI either. */
export function noNode(): string | false {
  if (process.env.CI && process.getuid?.() === 0) return false;
  const missing = missingForNode();
  return missing === undefined ? false : `a real node needs ${missing}`;
}
