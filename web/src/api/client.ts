/**
 * Requests to the agent that served this page, and whether it can be reached. Nothing here, or anywhere in the dashboard, asks
 * another host.
 */
import { signal } from '@preact/signals'
import { place } from '../state/place'

/** Below which path of our origin the agent answers: '' unless a proxy gave it one. */
export const root = place.root

export type Reach = { ok: true } | { ok: false; since: number; reason: string }

/** How the agent answered last. */
export const reach = signal<Reach>({ ok: true })

const TIMEOUT_MS = 30_000

/** An answer that is not what was asked for. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly text: string,
  ) {
    super(text.trim() || `the agent answered ${status}`)
  }
}

function lost(reason: string): void {
  if (reach.value.ok) reach.value = { ok: false, since: Date.now(), reason }
}

async function ask(path: string, signal?: AbortSignal, headers?: Record<string, string>): Promise<Response> {
  const timeout = AbortSignal.timeout(TIMEOUT_MS)
  const either = signal ? AbortSignal.any([signal, timeout]) : timeout
  let response: Response
  try {
    response = await fetch(root + path, { signal: either, headers, credentials: 'same-origin' })
  } catch (error) {
    if (signal?.aborted) throw error
    lost(timeout.aborted ? 'it does not answer' : 'it cannot be reached')
    throw new Error('the agent cannot be reached')
  }
  if (!reach.value.ok) reach.value = { ok: true }
  return response
}

/** The text at `path`; throws `Refused` for anything but 200. */
export async function getText(path: string, signal?: AbortSignal, headers?: Record<string, string>): Promise<string> {
  const response = await ask(path, signal, headers)
  const text = await response.text()
  if (!response.ok) throw new Refused(response.status, text)
  return text
}

export async function getJson<T>(path: string, signal?: AbortSignal): Promise<T> {
  return JSON.parse(await getText(path, signal)) as T
}

/** The path of `rest` for one host. The agent's own host is asked by name too: it knows itself by it. */
export function ofHost(host: string, rest: string): string {
  return `/host/${encodeURIComponent(host)}${rest}`
}

/** A query string of what is given. */
export function query(parameters: Record<string, string | number | undefined>): string {
  const pairs = Object.entries(parameters).filter(([, value]) => value !== undefined && value !== '')
  return pairs.map(([name, value]) => `${name}=${encodeURIComponent(String(value))}`).join('&')
}

/** Whether an error only says that nobody waits for the answer any more. */
export function isAbort(error: unknown): boolean {
  return error instanceof DOMException && error.name === 'AbortError'
}
