package page

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/security"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/dcos/dcos-overlay/integration/lab"
)

// patience bounds what a test waits for; a busy machine is slow.
const patience = 2 * time.Minute

// browser is one tab of a browser of its own.
type browser struct {
	t   *testing.T
	ctx context.Context
	// faults are the errors that the page's scripts have made, and what the
	// browser has refused.
	faults chan string
}

// newBrowser starts a browser that ends with the test.
func newBrowser(t *testing.T) *browser {
	t.Helper()
	alloc, cancel := chromedp.NewExecAllocator(context.Background(),
		chromedp.ExecPath("chromium"),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.Flag("hide-scrollbars", true),
		chromedp.UserDataDir(profile(t)),
		chromedp.WSURLReadTimeout(patience),
	)
	t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(alloc)
	b := &browser{t: t, ctx: ctx, faults: make(chan string, 100)}
	t.Cleanup(func() {
		// So that the browser has ended before its directory is removed.
		if err := chromedp.Cancel(ctx); err != nil {
			t.Logf("end the browser: %v", err)
		}
		cancel()
	})
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start chromium: %v; run scripts/install-deps.sh if it is not there", err)
	}
	messages := chromedp.Console(ctx)
	go func() {
		for m, err := range messages {
			if err != nil {
				return // the browser has ended
			}
			if m.IsException() || m.Type == "error" {
				b.fault(m.Text)
			}
		}
	}()
	return b
}

// profile is a directory that the browser keeps its files in. Of a browser that
// has ended some processes may still be writing for a moment.
func profile(t *testing.T) string {
	t.Helper()
	dir, err := lab.TempDir()
	check(t, err)
	t.Cleanup(func() {
		err := lab.Until(context.Background(), "the browser's files to be removed", func(context.Context) error {
			return os.RemoveAll(dir)
		})
		if err != nil {
			t.Error(err)
		}
	})
	return dir
}

func (b *browser) fault(text string) {
	select {
	case b.faults <- text:
	default: // enough of them are known
	}
}

// sound fails the test if the page's scripts have made an error.
func (b *browser) sound() {
	b.t.Helper()
	for len(b.faults) > 0 {
		b.t.Errorf("the page's script: %s", <-b.faults)
	}
}

// of is the same browser for a subtest.
func (b *browser) of(t *testing.T) *browser {
	sub := *b
	sub.t = t
	return &sub
}

// complaint waits until the browser has complained of something with words in
// it, and forgets that and what came before.
func (b *browser) complaint(words string) {
	b.t.Helper()
	end := time.After(patience)
	for {
		select {
		case text := <-b.faults:
			if strings.Contains(text, words) {
				return
			}
		case <-end:
			b.t.Fatalf("the browser did not complain of %s", words)
		}
	}
}

// print shows the page as it would be on paper.
func (b *browser) print() {
	b.t.Helper()
	run1(b, "print", call(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Media: "print"}))
}

// do runs actions, within patience.
func (b *browser) do(what string, actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
}

// open loads a page and waits until it shows what there is.
func (b *browser) open(url string) {
	b.t.Helper()
	b.do("open "+url, chromedp.Navigate(url))
	b.await("the page to show something", `!document.getElementById("main").hasAttribute("aria-busy")`)
}

// value is what an expression of JavaScript has.
func value[T any](b *browser, expression string) T {
	b.t.Helper()
	return run1(b, expression, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
}

// run1 runs one action, within patience, and returns its result.
func run1[T any](b *browser, what string, action chromedp.Action[T]) T {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	v, err := chromedp.Run(ctx, action)
	if err != nil {
		b.t.Fatalf("%s: %v", what, err)
	}
	return v
}

func (b *browser) text(selector string) string {
	b.t.Helper()
	return value[string](b, fmt.Sprintf(`document.querySelector(%q)?.innerText ?? "(none)"`, selector))
}

// texts are those of all elements that fit.
func (b *browser) texts(selector string) []string {
	b.t.Helper()
	return value[[]string](b, fmt.Sprintf(`Array.from(document.querySelectorAll(%q), (e) => e.innerText)`, selector))
}

// await waits until an expression is true, and returns how long that took.
func (b *browser) await(what, expression string) time.Duration {
	b.t.Helper()
	begin := time.Now()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	// The page itself looks, at every frame or so: asking it takes longer.
	_, err := chromedp.Run(ctx, chromedp.Poll[bool](expression, chromedp.WithPollingInterval(10*time.Millisecond), chromedp.WithPollingTimeout(patience)))
	if err != nil {
		b.t.Fatalf("waiting for %s: %v; found: %s; the page says:\n%s", what, err, b.text("#found"), b.text("body"))
	}
	return time.Since(begin)
}

// awaitText waits until the text of an element has words.
func (b *browser) awaitText(selector, words string) time.Duration {
	b.t.Helper()
	return b.await(fmt.Sprintf("%q in %s", words, selector),
		fmt.Sprintf(`document.querySelector(%q)?.innerText.includes(%q)`, selector, words))
}

// press presses keys, as if on a keyboard.
func (b *browser) press(keys ...string) {
	b.t.Helper()
	for _, k := range keys {
		b.do("press a key", chromedp.KeyEvent(k))
	}
}

// tabTo goes on by Tab until the focus is on an element that fits, and returns
// how many times it was pressed.
func (b *browser) tabTo(selector string) int {
	b.t.Helper()
	const most = 60
	for n := range most {
		if value[bool](b, fmt.Sprintf(`document.activeElement.matches(%q)`, selector)) {
			return n
		}
		b.press(kb.Tab)
	}
	b.t.Fatalf("%d times Tab did not lead to %s", most, selector)
	return 0
}

// size makes the window so wide and high, in CSS pixels.
func (b *browser) size(width, height int64) {
	b.t.Helper()
	b.do("resize", chromedp.EmulateViewport(width, height, chromedp.EmulateScale(1)))
}

// trustAll has it take any coordinator's certificate.
func (b *browser) trustAll() {
	b.t.Helper()
	run1(b, "trust all certificates", call(security.SetIgnoreCertificateErrors, security.SetIgnoreCertificateErrorsParams{Ignore: true}))
}

// scheme is what the system is said to prefer: light or dark.
func (b *browser) scheme(name string) {
	b.t.Helper()
	run1(b, "prefer "+name, call(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
		{Name: "prefers-color-scheme", Value: name},
		// What moves would be in another place in each picture.
		{Name: "prefers-reduced-motion", Value: "reduce"},
	}}))
}

// call is a command of the browser as an action.
func call[P, R any](command cdp.Command[P, R], params P) chromedp.Action[R] {
	return func(ctx context.Context, t *chromedp.Target) (R, error) { return cdp.Call(ctx, t, command, params) }
}

// picture keeps a picture of what is seen or, if whole, of all there is below.
func (b *browser) picture(name string, whole bool) {
	b.t.Helper()
	if *images == "" {
		return
	}
	shot := chromedp.CaptureScreenshot()
	if whole {
		shot = chromedp.FullScreenshot(100)
	}
	png := run1(b, "picture "+name, shot)
	check(b.t, os.MkdirAll(*images, 0o755))
	check(b.t, os.WriteFile(filepath.Join(*images, name+".png"), png, 0o644))
}

// accessible fails the test for each violation that axe finds.
func (b *browser) accessible(what string) {
	b.t.Helper()
	if !value[bool](b, `typeof axe === "object"`) {
		value[bool](b, axeSource(b.t)+"; true")
	}
	found := value[string](b, `axe.run(document, {resultTypes: ["violations"]}).then((r) => JSON.stringify({
		violations: r.violations.map((v) => ({id: v.id, help: v.help, nodes: v.nodes.slice(0, 5).map((n) => n.html + " " + n.failureSummary)})),
		passes: r.passes.length}))`)
	var result struct {
		Violations []struct {
			ID, Help string
			Nodes    []string
		}
		Passes int
	}
	check(b.t, json.Unmarshal([]byte(found), &result))
	for _, v := range result.Violations {
		b.t.Errorf("axe, %s: %s: %s\n\t%s", what, v.ID, v.Help, strings.Join(v.Nodes, "\n\t"))
	}
	if result.Passes < 20 {
		b.t.Errorf("axe, %s: only %d rules had something to look at", what, result.Passes)
	}
	b.t.Logf("axe, %s: %d violations; %d rules are kept", what, len(result.Violations), result.Passes)
}
