/** `node scripts/cluster/main.mjs`: builds the test cluster's programs and prints where they are. */
import { buildCluster } from './build.mjs';

console.log(await buildCluster());
