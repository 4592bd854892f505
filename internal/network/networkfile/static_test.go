package networkfile

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

const staticNetwork = `{"vtep_subnet": "44.128.0.0/20", "vtep_subnet6": "fd01:a::/64", "vtep_mac_oui": "70:B3:D5:00:00:00", "overlays": [
{"name": "o", "subnet": "9.0.0.0/16", "prefix": 24, "subnet6": "fd01:b::/64", "prefix6": 80,
 %s}]}`

func TestStaticSubnet(t *testing.T) {
	for text, want := range map[string]string{
		`"static_subnet": "9.0.255.0/24"`:                                                "9.0.255.0/24 invalid Prefix 1m0s",
		`"static_subnet6": "fd01:b:0:0:8000::/65", "static_takeover": 90`:                "invalid Prefix fd01:b:0:0:8000::/65 1m30s",
		`"static_subnet": "9.0.128.0/17", "static_takeover": "2m"`:                       "9.0.128.0/17 invalid Prefix 2m0s",
		`"static_subnet": "9.1.0.0/24"`:                                                  "static_subnet: 9.1.0.0/24 is not a part of subnet (9.0.0.0/16)",
		`"static_subnet": "9.0.0.0/16"`:                                                  "static_subnet: 9.0.0.0/16 is not a part of subnet (9.0.0.0/16)",
		`"static_subnet": "9.0.1.0/25"`:                                                  "static_subnet: 9.0.1.0/25 is less than one agent's subnet: its length is at most the 24 of prefix",
		`"static_subnet": "9.0.1.1/24"`:                                                  "static_subnet: 9.0.1.1/24 has bits set after its first 24; write 9.0.1.0/24",
		`"static_subnet": "fd01:b::/80"`:                                                 "static_subnet: fd01:b::/80 is not an IPv4 subnet such as 9.0.0.0/8",
		`"static_subnet6": "fd01:b:0:0:1::/96"`:                                          "static_subnet6: fd01:b:0:0:1::/96 is less than one agent's subnet: its length is at most the 80 of prefix6",
		`"static_takeover": 90`:                                                          "static_takeover: is given, though there is no static_subnet",
		`"static_subnet": "9.0.255.0/24", "static_takeover": "0.5s"`:                     "static_takeover: 500ms is less than 1s",
		`"static_subnet": "9.0.255.0/24", "static_takeover": "soon"`:                     `static_takeover: want a time such as 90s, or a number of seconds, have "soon"`,
		`"static_subnet": "9.0.255.0/24", "static_takeover": true`:                       "static_takeover: want a time such as 90s, or a number of seconds, have true",
		`"static_subnet": "9.0.255.0/24", "static_takeover": -5`:                         "static_takeover: -5s is less than 1s",
		`"static_subnet": "9.0.255.0/24", "static_takeover": 99999999999999999999999999`: "static_takeover: want a time such as 90s, or a number of seconds, have 99999999999999999999999999",
	} {
		n, err := Parse(fmt.Appendf(nil, staticNetwork, text))
		if err != nil {
			if !strings.Contains(err.Error(), "overlays[0]."+want) {
				t.Errorf("%s: got %v,\nwant %s", text, err, want)
			}
			continue
		}
		o := n.Overlays[0]
		if got := fmt.Sprint(o.StaticSubnet, " ", o.StaticSubnet6, " ", o.Takeover().Round(time.Second)); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}
