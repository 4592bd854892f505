package ipam

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Note makes the directory of stores dir one that Noted tells of: by a
// symbolic link to it in places, whose name follows from dir.
func Note(places, dir string) error {
	sum := sha256.Sum256([]byte(dir))
	link := filepath.Join(places, hex.EncodeToString(sum[:8]))
	if at, err := os.Readlink(link); err == nil && at == dir {
		return nil
	}
	if err := os.MkdirAll(places, 0o755); err != nil {
		return fmt.Errorf("note where addresses are reserved: %w", err)
	}
	if err := os.Symlink(dir, link); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("note where addresses are reserved: %w", err)
	}
	return nil
}

// Noted are the directories known, and all others that were noted in places.
// They need not be there any more.
func Noted(places string, known ...string) []string {
	// Without it nothing was noted.
	links, _ := os.ReadDir(places)
	dirs := slices.Clone(known)
	for _, l := range links {
		dir, err := os.Readlink(filepath.Join(places, l.Name()))
		if err == nil && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}
