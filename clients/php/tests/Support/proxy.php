
// Passes each request on and drops every second answer, after the server has given it. One connection for each
// request, many at a time: a request may wait for a lock.
$listener = stream_socket_server('tcp://127.0.0.1:0');
echo 'port ', substr(strrchr(stream_socket_get_name($listener, false), ':'), 1), "\n";
$pairs = [];
$answers = $dropped = 0;
while (true) {
    $read = [STDIN, $listener];
    foreach ($pairs as [$client, $upstream]) {
        array_push($read, $client, $upstream);
    }
    $none = null;
    stream_select($read, $none, $none, null);
    if (in_array(STDIN, $read, true)) {
        false !== fgets(STDIN) or exit;
        echo "dropped $dropped\n";
    }
    if (in_array($listener, $read, true)) {
        $pairs[] = [stream_socket_accept($listener), stream_socket_client("tcp://$server")];
    }
    foreach ($pairs as $i => [$client, $upstream]) {
        if (in_array($upstream, $read, true)) {
            $answer = fread($upstream, 65536);
            // The rest comes with it or shortly after: answers are small.
            if ('' === $answer || 0 === ++$answers % 2) {
                '' === $answer or ++$dropped;
                fclose($client);
                fclose($upstream);
                unset($pairs[$i]);
                continue;
            }
            fwrite($client, $answer);
        }
        if (in_array($client, $read, true)) {
            $request = fread($client, 65536);
            if ('' === $request) {
                fclose($client);
                fclose($upstream);
                unset($pairs[$i]);
                continue;
            }
            fwrite($upstream, $request);
        }
    }
}
