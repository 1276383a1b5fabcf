export function TopologyView() { return <p class="note">…</p> }
