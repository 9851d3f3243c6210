/** Why tests on a real control plane are skipped, or false. Under CI nothing is skipped: a missing tool fails the test. */
import { findGo } from '../../../scripts/cluster/build.mjs';
import { missingForSubnets } from './subnet.ts';

export function noCluster(): string | false {
  if (process.env.CI) return false;
  if (findGo() === undefined)
    return 'no Go to build the control plane with; install Go 1.25 or later';
  const missing = missingForSubnets();
  return missing === undefined ? false : `fake pods need ${missing}`;
}
