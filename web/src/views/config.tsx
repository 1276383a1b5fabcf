/** What the agent runs with: every option of netdata.conf, what was set apart from what is by itself. Reads only. */
import { getText } from '../api/client'
import { parseConf } from '../model/conf'
import { route, setParams } from '../state/place'
import { usePoll } from '../state/poll'
import { Glyph } from '../ui/glyph'

export function ConfigView() {
  const { params } = route.value
  const typed = (params.get('q') ?? '').toLowerCase()
  const onlySet = params.get('set') === '1'
  const { data, error, again } = usePoll('conf', undefined, async (signal) => parseConf(await getText('/netdata.conf', signal)))
  if (error) {
    return (
      <div class="note error">
        <p>{error}</p>
        <p class="muted">Who may read it is said by “allow netdata.conf from” in [web]. <button type="button" onClick={again}>Try again</button></p>
      </div>
    )
  }
  if (!data) return <p class="note">asking the agent …</p>
  const sections = data
    .map((section) => {
      const whole = section.name.toLowerCase().includes(typed)
      const options = section.options.filter((one) => (!onlySet || one.set) && (whole || one.name.toLowerCase().includes(typed) || one.value.toLowerCase().includes(typed)))
      return { ...section, options }
    })
    .filter((section) => section.options.length > 0)
  const count = data.reduce((sum, section) => sum + section.options.filter((one) => one.set).length, 0)
  return (
    <>
      <div class="tools">
        <label class="search">
          <Glyph name="search" />
          <span class="sr">Search options</span>
          <input type="search" value={params.get('q') ?? ''} placeholder="section, option or value" onInput={(event) => setParams({ q: event.currentTarget.value })} />
        </label>
        <div class="chips">
          <button type="button" aria-pressed={onlySet} onClick={() => setParams({ set: onlySet ? null : '1' })}>only what is set <b>{count}</b></button>
        </div>
        <span class="grow" />
        <span class="muted wide-only">netdata.conf as it is in effect; keys and passwords are hidden</span>
      </div>
      {sections.length === 0 && <p class="note">No option is like that. <button type="button" onClick={() => setParams({ q: null, set: null })}>Show all</button></p>}
      <div class="conf">
        {sections.map((section) => (
          <section key={section.name} class="panel" aria-label={section.name}>
            <h2>{section.name}</h2>
            <dl>
              {section.options.map((one) => (
                <div key={one.name} class={one.set ? 'set' : ''}>
                  <dt title={one.name}>{one.name}</dt>
                  <dd>
                    {one.secret && <Glyph name="lock" />}
                    <span class="mono">{one.value || <span class="muted">empty</span>}</span>
                    {one.unused && <span class="tag warning" title="Nothing ever asked for this option: is it spelled as documented?">not used</span>}
                  </dd>
                </div>
              ))}
            </dl>
          </section>
        ))}
      </div>
    </>
  )
}
