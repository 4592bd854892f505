package mesos

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

const (
	// maxRecord bounds a record in bytes. The first one holds all of Mesos's
	// state: with 65,536 agents that run a few tasks each, some 300 MB.
	maxRecord = 1 << 30
	// maxLength bounds the digits of a record's length.
	maxLength = 10
)

// errFormat is the cause when what a master sends is no sequence of records.
var errFormat = errors.New("this is not RecordIO")

// records reads RecordIO: each record is its length in bytes, as decimal
// digits, a newline, and the bytes.
type records struct {
	in  *bufio.Reader
	max int64
}

func newRecords(in io.Reader) *records { return &records{bufio.NewReader(in), maxRecord} }

// next reads one record. The error is io.EOF only where a record might begin.
func (r *records) next() ([]byte, error) {
	n, err := r.length()
	if err != nil {
		return nil, err
	}
	// It grows as bytes come: a length alone takes no memory.
	var record bytes.Buffer
	if _, err := io.CopyN(&record, r.in, n); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("read a record of %d bytes: %w", n, err)
	}
	return record.Bytes(), nil
}

func (r *records) length() (int64, error) {
	var digits []byte
	for {
		c, err := r.in.ReadByte()
		switch {
		case errors.Is(err, io.EOF) && len(digits) > 0:
			return 0, fmt.Errorf("read the length of a record: %w", io.ErrUnexpectedEOF)
		case err != nil:
			return 0, err
		case c == '\n' && len(digits) > 0:
			n, err := strconv.ParseInt(string(digits), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("%w: %w", errFormat, err)
			}
			if n > r.max {
				return 0, fmt.Errorf("a record has %d bytes: at most %d are taken", n, r.max)
			}
			return n, nil
		case c < '0' || c > '9' || len(digits) == maxLength:
			return 0, fmt.Errorf("%w: %q follows %q where a record's length should be", errFormat, c, digits)
		}
		digits = append(digits, c)
	}
}
