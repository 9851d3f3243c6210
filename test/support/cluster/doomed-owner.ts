/** A process of its own that starts a real node with a pod, says so, and waits to be killed. */
import { startNodeCluster } from '../../../scripts/cluster/node-cluster.ts';
import { runPausePod } from './pause-pod.ts';

const cluster = await startNodeCluster({ images: [] });
await runPausePod(cluster);
console.log(`running in ${cluster.plane.folder}`);
setInterval(() => {}, 2 ** 30);
