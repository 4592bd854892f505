package manual

import (
	"slices"
	"strings"
	"testing"
)

func TestBlocks(t *testing.T) {
	got, err := Blocks("a\n```sh agent again\nx\n  y\n```\n1. b\n\n   ```json\n   {\n     \"a\": 1}\n   ```\n```text\n```\n")
	if err != nil {
		t.Fatal(err)
	}
	want := []Block{
		{2, "sh", "agent", true, "x\n  y\n"},
		{8, "json", "", false, "{\n  \"a\": 1}\n"},
		{12, "text", "", false, ""},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got[0].Head() != "x" {
		t.Errorf("the head is %q", got[0].Head())
	}
}

func TestBlocksRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"a\n```sh agent\nx\n":         "line 2: the block is not closed",
		"```\nx\n```\n":               "line 1",
		"```sh agent often\nx\n```\n": "line 1",
	} {
		if _, err := Blocks(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
