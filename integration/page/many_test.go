package page

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"

	"github.com/dcos/dcos-overlay/internal/api"
	"github.com/dcos/dcos-overlay/internal/lease"
	"github.com/dcos/dcos-overlay/internal/network"
)

const (
	wide, high             = 1280, 900
	narrowWide, narrowHigh = 390, 844
)

// TestEmpty: where there are no agents yet, the page says how to get some.
func TestEmpty(t *testing.T) {
	c := newCrowd(t, nil)
	b := newBrowser(t)
	b.size(wide, high)
	for _, scheme := range []string{"light", "dark"} {
		b.scheme(scheme)
		b.open(c.url)
		contains(t, "the page", b.text("main"), "No agent yet", "/etc/dcos-overlay/agent.json", c.url, "systemctl enable --now dcos-overlay-companion")
		b.accessible("no agents, " + scheme)
	}
	b.picture("page-empty", true)
	for _, o := range c.registry.Network().Overlays {
		_, err := c.registry.DeleteOverlay(t.Context(), o.Name, true)
		check(t, err)
	}
	b.awaitText("main", "No overlay yet")
	b.accessible("no overlays")
	c.join(1, nil)
	b.awaitText("#found", "1 agent")
	b.sound()
}

// TestMany goes through all that the page does, on very many agents.
func TestMany(t *testing.T) {
	c := newCrowd(t, nil)
	c.join(*agents, []string{"dcos", "dual", "edge", "legacy"})
	c.change()
	b := newBrowser(t)
	b.size(wide, high)
	b.scheme("light")
	begin := time.Now()
	b.open(c.url)
	t.Logf("%d agents: shown %s after the browser was told to open the page", *agents, time.Since(begin).Round(time.Millisecond))
	for _, name := range []string{"first-paint", "first-contentful-paint", "shown"} {
		ms := value[float64](b, fmt.Sprintf(`performance.getEntriesByName(%q)[0]?.startTime ?? -1`, name))
		t.Logf("%s: %.0f ms", name, ms)
	}
	if got := value[float64](b, `performance.getEntriesByType("resource").reduce((n, r) => n + r.transferSize, 0)`); got < 10000 {
		t.Errorf("the page loaded %.0f bytes only: this looks at the wrong thing", got)
	} else {
		t.Logf("loaded: %.0f kB", got/1000)
	}
	b.await("the stream", `document.getElementById("link").dataset.state === "live"`)
	// What a reload would lose.
	value[bool](b, `window.kept = true`)
	for _, step := range []struct {
		name string
		run  func(*testing.T, *crowd, *browser)
	}{
		{"Overlays", overlays}, {"Search", search}, {"Filter", filter}, {"Sort", order}, {"Pages", pages},
		{"Live", live}, {"Text", text}, {"Detail", detail}, {"Keyboard", keyboard}, {"Alone", alone},
	} {
		t.Run(step.name, func(t *testing.T) {
			b := b.of(t)
			step.run(t, c, b)
			if !value[bool](b, `window.kept === true`) {
				t.Error("the page was loaded again")
			}
			b.sound()
		})
	}
	t.Run("Colours", func(t *testing.T) { colours(t, c, b.of(t)) })
	t.Run("Narrow", func(t *testing.T) { narrow(t, c, b.of(t)) })
	t.Run("Print", func(t *testing.T) { printed(t, c, b.of(t)) })
	t.Run("Lost", func(t *testing.T) { lost(t, c, b.of(t)) })
}

func overlays(t *testing.T, c *crowd, b *browser) {
	rows := b.texts("#overlays tbody tr")
	if len(rows) != 6 {
		t.Fatalf("there are %d rows: %q", len(rows), rows)
	}
	contains(t, "dcos", rows[0], "Enabled", "9.0.0.0/8", "in /24", "leased", "free")
	contains(t, "dual", rows[1], "40 resting", "fd01:b::/48")
	contains(t, "edge", rows[2], "13 leased", "3 free")
	contains(t, "legacy", rows[3], "Draining", "Being deleted; 8 agents hold subnets of it.")
	contains(t, "batch", rows[4], "Disabled", "Nothing more is leased.", "1,024 free")
	contains(t, "VTEPs", rows[5], "44.128.0.0/15", "fd01:a::/64")
	label := value[string](b, `document.querySelector("#overlays [role=img]").getAttribute("aria-label")`)
	contains(t, "the bar's label", label, "9.0.0.0/8: ", " leased, 0 resting, ", " free")
}

// type types into the search, and returns how long it took until the page had
// found what fits.
func (b *browser) search(words, found string) time.Duration {
	b.t.Helper()
	value[bool](b, `{ const s = document.getElementById("search"); s.focus(); s.select(); true }`)
	b.press(kb.Delete)
	b.press(words)
	return b.awaitText("#found", found)
}

func search(t *testing.T, c *crowd, b *browser) {
	all := fmt.Sprintf(" of %s agents", thousands(*agents))
	b.press("/")
	if got := value[string](b, `document.activeElement.id`); got != "search" {
		t.Errorf("a slash leads to %q", got)
	}
	// The address of a container finds its agent.
	subnet := c.subnet(addr(7), "dcos")
	inside := subnet.Addr().Next().Next().String()
	t.Logf("from the last key of a search to its result: %s", b.search(inside, "1"+all).Round(time.Millisecond))
	if rows := b.texts("#agents tbody th"); !slices.Equal(rows, []string{addr(7).String()}) {
		t.Errorf("%s is on %q", inside, rows)
	}
	b.search("not reachable dcos", fmt.Sprintf("%d%s", count(*agents, func(i int) bool { return stateOf(i).Error != "" && !silent(i) && i != 30 }), all))
	b.search("nothing like that", "0"+all)
	contains(t, "the page", b.text("#no-agents"), "No agent fits")
	b.accessible("no match")
	value[bool](b, `document.querySelector("#no-agents button").click(), true`)
	b.awaitText("#found", thousands(*agents)+" agents")
}

func filter(t *testing.T, c *crowd, b *browser) {
	failed := count(*agents, func(i int) bool { return stateOf(i).Error != "" && !silent(i) })
	value[bool](b, `document.getElementById("state-failed").click(), true`)
	b.awaitText("#found", fmt.Sprintf("%d of", failed))
	rows := b.texts("#agents tbody tr")
	if len(rows) != failed {
		t.Errorf("%d rows are shown, want %d", len(rows), failed)
	}
	for _, r := range rows {
		contains(t, "a failed agent", r, "Failed", "dcos: ")
	}
	value[bool](b, `document.getElementById("state-silent").click(), true`)
	b.awaitText("#found", fmt.Sprintf("%d of", count(*agents, silent)))
	contains(t, "a silent agent", b.texts("#agents tbody tr")[0], "Silent", "for 2 h")
	value[bool](b, `document.getElementById("state-all").click(), true`)
	value[bool](b, `document.querySelector("#overlays tbody tr:nth-child(3) button").click(), true`)
	b.awaitText("#found", "13 of")
	if got := value[string](b, `document.getElementById("overlay").value + location.search`); got != "edge?overlay=edge" {
		t.Errorf("the overlay chosen is %q", got)
	}
	value[bool](b, `{ const s = document.getElementById("overlay"); s.value = ""; s.dispatchEvent(new Event("change")); true }`)
	b.awaitText("#found", thousands(*agents)+" agents")
}

func order(t *testing.T, c *crowd, b *browser) {
	click := func(name string) {
		value[bool](b, fmt.Sprintf(`document.querySelector("th[data-sort=%s] button").click(), true`, name))
	}
	first := `document.querySelector("#agents tbody tr")?.innerText`
	click("use")
	b.await("the fullest first", first+`.includes("123 of 123")`)
	if got := value[string](b, `document.querySelector("th[data-sort=use]").getAttribute("aria-sort")`); got != "descending" {
		t.Errorf("aria-sort is %q", got)
	}
	click("use")
	b.await("those that report nothing first", first+`.includes("None") || `+first+`.includes("Not reported")`)
	click("state")
	b.await("the failed first", first+`.includes("Failed")`)
	value[bool](b, `document.activeElement.blur(), scrollTo(0, 0), true`)
	b.picture("page-light", false)
	click("vtep")
	b.await("the lowest VTEP first", first+`.includes("44.128.0.1\t")`)
	click("ip")
	b.await("the lowest address first", first+`.startsWith("`+addr(0).String()+`")`)
}

func pages(t *testing.T, c *crowd, b *browser) {
	turn := func(to string) {
		value[bool](b, fmt.Sprintf(`document.querySelector("[data-page=%s]").click(), true`, to))
	}
	begin := time.Now()
	turn("next")
	b.awaitText("#range", "51–100 of")
	t.Logf("from a click to the next page: %s", time.Since(begin).Round(time.Millisecond))
	turn("last")
	b.awaitText("#agents tbody", addr(*agents-1).String())
	if got := value[string](b, `document.querySelector("[data-page=next]").getAttribute("aria-disabled")`); got != "true" {
		t.Errorf("on the last page, the button for the next one has aria-disabled %q", got)
	}
	turn("first")
	b.awaitText("#range", "1–50 of")
}

// live changes things, which the page must show by itself.
func live(t *testing.T, c *crowd, b *browser) {
	ctx := t.Context()
	seen := func(what string, change func(), wait func() time.Duration) {
		begin := time.Now()
		change()
		wait()
		t.Logf("%s: seen %s after the change began", what, time.Since(begin).Round(time.Millisecond))
	}
	row := fmt.Sprintf(`tr[data-key="%s"]`, addr(5))
	failed := lease.State{Status: lease.StatusFailed, Error: "bridge m-dcos: device or resource busy"}
	seen("an agent that fails", func() { check(t, c.report(ctx, 5, []string{"dcos"}, failed)) },
		func() time.Duration { return b.awaitText(row, "dcos: bridge m-dcos: device or resource busy") })
	seen("the same, mended", func() { check(t, c.report(ctx, 5, []string{"dcos"}, lease.State{Status: lease.StatusOK})) },
		func() time.Duration { return b.awaitText(row, "OK") })
	seen("an agent that is deleted", func() { check(t, c.registry.Delete(ctx, []netip.Addr{addr(6)}, true)) },
		func() time.Duration { return b.awaitText("#found", thousands(*agents-1)+" agents") })
	seen("an agent that comes", func() { check(t, c.play(ctx, 6, []string{"dcos"})) },
		func() time.Duration { return b.awaitText("#found", thousands(*agents)+" agents") })
	web := network.Overlay{Name: "web", Subnet: netip.MustParsePrefix("10.230.0.0/16"), Prefix: 26}
	seen("a new overlay", func() { _, err := c.registry.PutOverlay(ctx, web); check(t, err) },
		func() time.Duration { return b.awaitText("#overlays", "web") })
	seen("its end", func() { _, err := c.registry.DeleteOverlay(ctx, "web", false); check(t, err) },
		func() time.Duration {
			return b.await("overlay web to go", `!document.getElementById("overlays").innerText.includes("web")`)
		})
	// No stream tells of counts.
	seen("addresses that are used up", func() {
		check(t, c.registry.Status(ctx, addr(5), api.StatusRequest{Overlays: []api.OverlayStatus{{
			Name: "dcos", State: lease.State{Status: lease.StatusOK}, Addresses: api.Addresses{Mesos: &api.Usage{Used: 123}},
		}}}))
	}, func() time.Duration { return b.awaitText(row, "123 of 123") })
}

// text: what an agent says is never taken for a part of the page.
func text(t *testing.T, c *crowd, b *browser) {
	const evil = `<img src=x onerror="window.kept=false"><b>x</b>`
	check(t, c.report(t.Context(), 5, []string{"dcos"}, lease.State{Status: lease.StatusFailed, Error: evil}))
	b.awaitText(fmt.Sprintf(`tr[data-key="%s"]`, addr(5)), evil)
	check(t, c.report(t.Context(), 5, []string{"dcos"}, lease.State{Status: lease.StatusOK}))
}

func detail(t *testing.T, c *crowd, b *browser) {
	show := func(i int) string {
		value[bool](b, fmt.Sprintf(`history.replaceState(null, "", "?agent=%s"), dispatchEvent(new PopStateEvent("popstate")), true`, addr(i)))
		b.awaitText("#detail", addr(i).String())
		b.awaitText("#detail-body", "VTEP MAC")
		return b.text("#detail")
	}
	contains(t, "the detail of a master", show(0), "44.128.0.", "no Mesos containers, no Docker networks", "It holds no subnet of any overlay.")
	contains(t, "the detail of a failed agent", show(21), "1 overlay does not work on this agent: dcos.", "Docker Engine not reachable")
	b.accessible("detail of a failed agent")
	contains(t, "the detail of a silent agent", show(17), "Silent since", "It keeps what it holds", "dcos-overlayctl agents delete "+addr(17).String())
	b.accessible("detail of a silent agent")
	text := show(24)
	contains(t, "the detail of a full agent", text, "fd01:a::", "70:b3:d5:", "m-dual", "d-dual", c.subnet(addr(24), "dual").String(), "114 of 123", "93 %")
	if got := value[string](b, `document.querySelector("#detail [role=meter]").ariaValueText`); got != "114 of 123 used" {
		t.Errorf("the meter says %q", got)
	}
	b.accessible("detail of an agent")
	b.picture("page-agent-light", false)
	b.press(kb.Escape)
	b.await("the detail to close", `!document.getElementById("detail").open && location.search === ""`)
}

// keyboard goes from the start of the page to an agent and back, by keys.
func keyboard(t *testing.T, c *crowd, b *browser) {
	// Where Tab begins is where the last focus was, so from a page anew.
	b.open(c.url)
	value[bool](b, `window.kept = true`)
	b.press(kb.Tab)
	if got := b.text(":focus"); got != "Skip to the agents" {
		t.Fatalf("the first Tab leads to %q", got)
	}
	b.press(kb.Enter)
	b.await("the search to have the focus", `document.activeElement.id === "search"`)
	b.press(addr(21).String())
	b.awaitText("#found", "1 of")
	b.press(kb.Tab)
	b.await("the states", `document.activeElement.name === "state"`)
	b.press(kb.ArrowRight)
	b.await("the failed ones", `document.getElementById("state-failed").checked`)
	t.Logf("from the states to the first agent: %d times Tab", b.tabTo("#agents tbody a"))
	visible := value[string](b, `getComputedStyle(document.activeElement).outlineStyle + " " + getComputedStyle(document.activeElement).outlineWidth`)
	if visible != "solid 2px" {
		t.Errorf("the focus is shown by an outline that is %q", visible)
	}
	b.press(kb.Enter)
	b.awaitText("#detail-body", "Docker Engine not reachable")
	for range 12 {
		b.press(kb.Tab)
		if value[bool](b, `document.activeElement !== document.body && !document.getElementById("detail").contains(document.activeElement)`) {
			t.Fatal("Tab leads out of the detail while it is open")
		}
	}
	b.press(kb.Escape)
	b.await("the focus to be back at the agent", `document.activeElement.matches("#agents tbody a")`)
	value[bool](b, `document.getElementById("search").value = "", document.getElementById("search").dispatchEvent(new Event("input")), document.getElementById("state-all").click(), true`)
	b.awaitText("#found", thousands(*agents)+" agents")
}

// alone: nothing comes from elsewhere, nothing may, and nothing is kept.
func alone(t *testing.T, c *crowd, b *browser) {
	for _, url := range value[[]string](b, `performance.getEntriesByType("resource").map((r) => r.name)`) {
		if !strings.HasPrefix(url, c.url+"/") {
			t.Errorf("the page asked for %s", url)
		}
	}
	if got := value[string](b, `document.cookie`); got != "" {
		t.Errorf("there are cookies: %s", got)
	}
	refused := value[bool](b, `fetch("http://127.0.0.2:1/").then(() => false, () => true)`)
	b.complaint("connect-src")
	inline := value[bool](b, `{ const s = document.createElement("div"); s.setAttribute("style", "color: red"); document.body.append(s); const c = s.style.color; s.remove(); c === "" }`)
	if !refused || !inline {
		t.Errorf("the policy lets pass: a request elsewhere %v, an inline style %v", !refused, !inline)
	}
	b.complaint("style-src")
}

func colours(t *testing.T, c *crowd, b *browser) {
	ground := func() string { return value[string](b, `getComputedStyle(document.body).backgroundColor`) }
	choose := func(v string) {
		value[bool](b, fmt.Sprintf(`{ const s = document.getElementById("theme"); s.value = %q; s.dispatchEvent(new Event("change")); true }`, v))
	}
	light := ground()
	b.accessible("light")
	b.scheme("dark")
	dark := ground()
	if light == dark {
		t.Errorf("light and dark are both on %s", dark)
	}
	b.open(c.url + "/?sort=-state")
	b.accessible("dark")
	b.picture("page-dark", false)
	choose("light")
	if got := ground(); got != light {
		t.Errorf("light by choice is %s", got)
	}
	b.open(c.url)
	if got := ground(); got != light {
		t.Errorf("light by choice is %s after a reload", got)
	}
	choose("")
	if got := ground(); got != dark {
		t.Errorf("by the system it is %s", got)
	}
	b.open(c.url + "/?agent=" + addr(21).String())
	b.awaitText("#detail-body", "VTEP MAC")
	b.accessible("detail, dark")
	b.picture("page-agent-dark", false)
	b.sound()
}

func narrow(t *testing.T, c *crowd, b *browser) {
	b.size(narrowWide, narrowHigh)
	for _, scheme := range []string{"light", "dark"} {
		b.scheme(scheme)
		b.open(c.url + "/?sort=-state&limit=25")
		if over := value[int](b, `document.documentElement.scrollWidth - innerWidth`); over > 0 {
			t.Errorf("the page is %d pixels wider than the screen", over)
		}
		if got := value[int](b, `document.querySelectorAll("#agents tr[role=row] > [role=cell]").length`); got != 4*25 {
			t.Errorf("as cards, the table has %d cells", got)
		}
		b.accessible("narrow, " + scheme)
		b.picture("page-narrow-"+scheme, false)
		value[bool](b, `document.getElementById("agents-title").scrollIntoView(), true`)
		b.picture("page-narrow-agents-"+scheme, false)
		b.open(c.url + "/?agent=" + addr(24).String())
		b.awaitText("#detail-body", "VTEP MAC")
		if over := value[int](b, `document.getElementById("detail").scrollWidth - innerWidth`); over > 0 {
			t.Errorf("the detail is %d pixels wider than the screen", over)
		}
		b.accessible("narrow, detail, " + scheme)
		b.picture("page-narrow-agent-"+scheme, false)
	}
	b.sound()
}

func printed(t *testing.T, c *crowd, b *browser) {
	b.size(wide, high)
	b.open(c.url)
	b.print()
	shown := value[string](b, `Array.from(document.querySelectorAll("table, .tools, .theme, .foot"), (e) => (e.id || e.className) + " " + (getComputedStyle(e).display !== "none")).join(", ")`)
	if want := "theme false, overlays true, tools false, agents true, foot false"; shown != want {
		t.Errorf("on paper there are: %s; want %s", shown, want)
	}
	if got := value[string](b, `getComputedStyle(document.body).backgroundColor`); got != "rgb(255, 255, 255)" {
		t.Errorf("paper is %s", got)
	}
	b.scheme("light")
	b.sound()
}

// lost: when the coordinator goes away, the page says so, and from when what it
// shows is.
func lost(t *testing.T, c *crowd, b *browser) {
	b.open(c.url)
	b.await("the stream", `document.getElementById("link").dataset.state === "live"`)
	c.stop()
	t.Logf("a coordinator that is gone: seen after %s", b.awaitText("#link", "Connection lost").Round(time.Millisecond))
	contains(t, "the notice", b.text("#notice"), "The coordinator does not answer; trying again. What is shown is of ")
	b.await("the age", `document.getElementById("link").dataset.age !== ""`)
	if rows := b.texts("#agents tbody tr"); len(rows) != 50 {
		t.Errorf("%d agents are still shown", len(rows))
	}
	b.accessible("connection lost")
	b.picture("page-lost", false)
}

func count(n int, is func(int) bool) (found int) {
	for i := range n {
		if is(i) {
			found++
		}
	}
	return found
}

// thousands writes n as the page does.
func thousands(n int) string {
	if n < 1000 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%d,%03d", n/1000, n%1000)
}
