/**
 * The nodes of this agent, for all views at once: how they stand is asked for every second, what they are (paths, labels) every
 * five. The loop runs as long as the page is seen.
 */
import { computed, signal } from '@preact/signals'
import { getJson, isAbort } from '../api/client'
import type { NodeInstances, StreamPath } from '../api/types'
import { type Fleet, fleet as merge } from '../model/nodes'
import { view } from './place'
import { Rhythm } from './poll'

const PATHS_EVERY_MS = 5_000
/** Where the map is looked at, a new way must be seen at once. */
const PATHS_EVERY_MAP_MS = 900
const EVERY_MS = 1_000

export const fleet = signal<Fleet | undefined>(undefined)
export const fleetError = signal<string | undefined>(undefined)

/** What the agent's clock is before ours, in seconds; so that "now" is the agent's. */
const skew = signal(0)

export function agentNow(): number {
  return Date.now() / 1000 + skew.value
}

export const agentName = computed(() => fleet.value?.agent.nm ?? '')
export const raised = computed(() => {
  let critical = 0
  let warning = 0
  for (const node of fleet.value?.nodes ?? []) {
    critical += node.critical
    warning += node.warning
  }
  return { critical, warning }
})

/** The paths of all nodes as they were said last. */
export const pathsKnown = signal<StreamPath | undefined>(undefined)
let pathsAt = Number.NEGATIVE_INFINITY

async function round(): Promise<void> {
  const pathsEvery = view.peek() === 'topology' ? PATHS_EVERY_MAP_MS : PATHS_EVERY_MS
  const [instances, fresh] = await Promise.all([
    getJson<NodeInstances>('/api/v2/node_instances'),
    performance.now() - pathsAt > pathsEvery ? getJson<StreamPath>('/api/v3/stream_path') : undefined,
  ])
  if (fresh) {
    pathsKnown.value = fresh
    pathsAt = performance.now()
  }
  const paths = pathsKnown.peek()
  // A node that is new has its path at the next round.
  if (paths && paths.nodes.length !== instances.nodes.length) pathsAt = Number.NEGATIVE_INFINITY
  const ahead = instances.agents[0]!.now - Date.now() / 1000
  if (Math.abs(ahead - skew.value) > 2) skew.value = Math.abs(ahead) < 2 ? 0 : ahead
  fleet.value = merge(instances, paths)
  fleetError.value = undefined
}

/** Begins to watch; called once. */
export function watchFleet(): void {
  const rhythm = new Rhythm(EVERY_MS)
  const step = async () => {
    if (document.hidden) {
      document.addEventListener('visibilitychange', () => void step(), { once: true })
      return
    }
    const began = performance.now()
    try {
      await round()
    } catch (error) {
      if (!isAbort(error)) fleetError.value = error instanceof Error ? error.message : String(error)
      pathsAt = Number.NEGATIVE_INFINITY
    }
    setTimeout(step, rhythm.pause(performance.now() - began))
  }
  void step()
}
