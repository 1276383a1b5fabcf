/** netdata.conf as the agent prints it, taken apart; what must not be read over a shoulder is masked. */

export type Option = {
  name: string
  value: string
  /** Set by somebody; otherwise a default. */
  set: boolean
  /** Nothing ever asked for it. */
  unused: boolean
  secret: boolean
}

export type ConfSection = { name: string; options: Option[] }

/** Names of options that hold a secret themselves; those that name a file with one do not. */
const SECRET = /(^|[ _-])(api[ _-]?key|password|passwd|secret|token|credentials?)$/i
/** Values that carry one: a password in a URL. */
const IN_URL = /(\/\/[^/\s:@]*:)[^/\s@]+@/g
/** What looks like an API key: a UUID that is a name or a value by itself. */
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i

export const MASK = '••••••••'

export function mask(name: string, value: string): { value: string; secret: boolean } {
  if (value === '') return { value, secret: false }
  if (SECRET.test(name) || UUID.test(value)) return { value: MASK, secret: true }
  const hidden = value.replace(IN_URL, `$1${MASK}@`)
  return { value: hidden, secret: hidden !== value }
}

export function parseConf(text: string): ConfSection[] {
  const out: ConfSection[] = []
  let unused = false
  for (const raw of text.split('\n')) {
    const line = raw.trim()
    const head = /^\[(.+)\]$/.exec(line)
    if (head) {
      const name = head[1]!
      out.push({ name: UUID.test(name) ? MASK : name, options: [] })
      unused = false
      continue
    }
    const section = out.at(-1)
    if (!section) continue
    if (/^# (option|section) '.*' is not used\.$/.test(line)) {
      unused = true
      continue
    }
    const option = /^(# )?([^=#]+?) =(?: (.*))?$/.exec(line)
    if (!option) continue
    const name = option[2]!
    const { value, secret } = mask(name, option[3]?.trim() ?? '')
    section.options.push({ name, value, set: !option[1], unused, secret })
    unused = false
  }
  return out
}
