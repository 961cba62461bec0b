package cri

import (
	"encoding/json"
	"fmt"
)

// verbose makes the info map of a verbose answer: one key with a JSON value.
func verbose(key string, value any) (map[string]string, error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", key, err)
	}
	return map[string]string{key: string(text)}, nil
}
