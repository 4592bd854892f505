package agent

import (
	"testing"
	"time"
)

func TestRest(t *testing.T) {
	for _, tt := range []struct {
		took      time.Duration
		repairing int
		want      time.Duration
	}{
		{0, 0, quiet},
		{10 * time.Millisecond, 0, quiet},
		{100 * time.Millisecond, 0, 400 * time.Millisecond},
		{time.Minute, 0, maxRest},
		{0, 1, quiet},
		{0, 2, 2 * quiet},
		{0, 4, 8 * quiet},
		{0, 5, maxRest},
		{0, 1 << 40, maxRest},
	} {
		if got := rest(tt.took, tt.repairing); got != tt.want {
			t.Errorf("rest(%s, %d) is %s, want %s", tt.took, tt.repairing, got, tt.want)
		}
	}
}

func TestPause(t *testing.T) {
	const interval = 10 * time.Second
	for failures, want := range map[int]time.Duration{
		0: interval, 1: time.Second, 2: 2 * time.Second, 4: 8 * time.Second, 5: interval, 1 << 40: interval,
	} {
		if got := pause(failures, interval); got != want {
			t.Errorf("pause after %d failures is %s, want %s", failures, got, want)
		}
	}
}

func TestSaid(t *testing.T) {
	var s said
	for i, tt := range []struct {
		key, text string
		news      bool
	}{
		{"a", "", false}, {"a", "bad", true}, {"a", "bad", false}, {"b", "bad", true},
		{"a", "worse", true}, {"a", "", true}, {"a", "", false}, {"a", "bad", true},
	} {
		if got := s.news(tt.key, tt.text); got != tt.news {
			t.Errorf("%d: news(%q, %q) is %v", i, tt.key, tt.text, got)
		}
	}
}

func TestBelow(t *testing.T) {
	for text, want := range map[string]bool{"1024\n": true, "1025\n": false, "1026": false, "": false, "x": false} {
		if got := below(text, 1025); got != want {
			t.Errorf("below(%q, 1025) is %v", text, got)
		}
	}
}
