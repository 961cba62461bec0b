nodectl run -d --name alpha busybox sleep 1000 >/dev/null
nodectl run -d --name beta busybox sleep 1000 >/dev/null
nodectl create --name gamma busybox true >/dev/null
nodectl volume create vol1 >/dev/null; nodectl network create net1 >/dev/null
cat > /tmp/b.sh <<'B'
source /usr/share/bash-completion/bash_completion
source <(nodectl completion bash)
c() { COMP_LINE="$1"; COMP_POINT=${#1}; read -ra COMP_WORDS <<<"$1"; [[ $1 = *" " ]] && COMP_WORDS+=(""); COMP_CWORD=$((${#COMP_WORDS[@]}-1)); COMPREPLY=(); __start_nodectl nodectl "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}" 2>&1; echo "bash [$1] -> ${COMPREPLY[*]}"; }
c "nodectl st"
c "nodectl stop "
c "nodectl stop al"
c "nodectl stop alpha "
c "nodectl start "
c "nodectl run "
c "nodectl run bus"
c "nodectl run --network "
c "nodectl run -v "
c "nodectl rmi "
c "nodectl logs e2e/"
c "nodectl why "
c "nodectl inspectp "
c "nodectl inspect "
c "nodectl volume rm "
c "nodectl network connect net1 "
c "nodectl image inspect "
c "nodectl ps --fi"
c "nodectl rm "
c "nodectl exec alpha "
c "nodectl cp alpha:/et"
c "nodectl --host unix:///x st"
c "nodectl container st"
c "nodectl stats "
c "nodectl restart al"
c "nodectl stopp "
c "nodectl system "
c "nodectl ps -n "
c "nodectl ps --pod "
c "nodectl kill -s "
c "nodectl events -f "
c "nodectl run --restart "
c "nodectl pull "
c "nodectl run --pull "
B
bash /tmp/b.sh
# without bash-completion
bash --norc -c 'source <(nodectl completion bash); type _get_comp_words_by_ref 2>&1 | head -1; COMP_LINE="nodectl stop "; COMP_POINT=13; COMP_WORDS=(nodectl stop ""); COMP_CWORD=2; __start_nodectl; echo "no bash-completion -> ${COMPREPLY[*]}"' 2>&1 | head -5
cat > /tmp/f.fish <<'F'
nodectl completion fish | source
for l in "nodectl st" "nodectl stop " "nodectl stop al" "nodectl run " "nodectl rmi " "nodectl why " "nodectl volume rm " "nodectl run --network "
  echo "fish [$l] ->" (complete -C $l | string replace -r '\t.*' '')
end
F
fish --no-config /tmp/f.fish 2>&1
cat > /tmp/z.zsh <<'Z'
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z 'PS1="READY>"; unsetopt zle_bracketed_paste; autoload -Uz compinit && compinit -u -D; source <(nodectl completion zsh); compdef _nodectl nodectl; LISTMAX=1000; zstyle ":completion:*" list-colors ""; stty cols 300; echo SET''UP'
zpty -r z out '*SETUP*' 
sleep 1
for l in "nodectl stop " "nodectl stop al" "nodectl run bus" "nodectl volume rm " "nodectl sto"; do
  zpty -w -n z "$l"$'\t'
  sleep 1.2
  zpty -r -t z out; all=""
  while [[ -n $out ]]; do all+=$out; out=""; zpty -r -t z out || break; done
  print -r -- "zsh [$l] -> ${(V)all}"
  zpty -w -n z $'\x15'
  sleep 0.2; while zpty -r -t z out; do :; done
done
zpty -d z
Z
HOME=/tmp zsh -f /tmp/z.zsh 2>&1
