// Package wholefile writes files that readers see whole, or not at all, even
// when the power goes.
package wholefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/google/renameio/v2"
)

// Write makes data the content of the file at path, readable by everybody. Its
// errors name that file, and not the one beside it that becomes it: that has
// another name each time, and the same trouble would be told as news.
func Write(path string, data []byte) error {
	err := renameio.WriteFile(path, data, 0o644)
	if err == nil {
		return nil
	}
	var made *fs.PathError
	var renamed *os.LinkError
	switch {
	case errors.As(err, &made):
		err = made.Err
	case errors.As(err, &renamed):
		err = renamed.Err
	}
	return fmt.Errorf("write %s: %w", path, err)
}
