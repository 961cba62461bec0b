package command

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
)

// NineDigits is how events and lines of logs begin: RFC 3339 with nine digits
// of the second always.
const NineDigits = "2006-01-02T15:04:05.000000000Z07:00"

// TimeFlag reads the time that a flag such as --since names; empty is nil.
func TimeFlag(flag, text string) (*timestamppb.Timestamp, error) {
	if text == "" {
		return nil, nil
	}
	at, err := ParseTime(text)
	if err != nil {
		return nil, fmt.Errorf("invalid value for %q: %w", flag, err)
	}
	return at, nil
}

// ParseTime reads a time: RFC 3339 or a part of it, in the local zone where it
// names none, Unix seconds, or how long ago.
func ParseTime(text string) (*timestamppb.Timestamp, error) {
	if ago, err := time.ParseDuration(text); err == nil {
		return timestamppb.New(time.Now().Add(-ago)), nil
	}
	if seconds, fraction, _ := strings.Cut(text, "."); seconds != "" {
		s, err := strconv.ParseInt(seconds, 10, 64)
		nanos, ferr := strconv.ParseInt((fraction + "000000000")[:9], 10, 64)
		if err == nil && ferr == nil {
			return timestamppb.New(time.Unix(s, nanos)), nil
		}
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return timestamppb.New(t), nil
	}
	for _, layout := range []string{
		"2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02",
		"2006-01-02T15:04Z07:00", "2006-01-02T15Z07:00", "2006-01-02Z07:00",
	} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return timestamppb.New(t), nil
		}
	}
	return nil, fmt.Errorf("failed to parse value as time or duration: %q", text)
}
