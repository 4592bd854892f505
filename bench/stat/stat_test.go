package stat

import "testing"

func TestSum(t *testing.T) {
	for _, c := range []struct {
		s    Sample
		want Summary
	}{
		{nil, Summary{}},
		{Sample{7}, Summary{1, 7, 7, 7}},
		{Sample{4, 1, 3, 2}, Summary{4, 2.5, 1.75, 3.25}},
		{Sample{5, 1, 4, 2, 3}, Summary{5, 3, 2, 4}},
	} {
		if got := c.s.Sum(); got != c.want {
			t.Errorf("%v: %+v, want %+v", c.s, got, c.want)
		}
	}
}

func TestRatios(t *testing.T) {
	if got := Ratios(Sample{2, 9, 1}, Sample{4, 3}); len(got) != 2 || got[0] != 0.5 || got[1] != 3 {
		t.Error(got)
	}
}
