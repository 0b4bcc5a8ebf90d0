// dcmjs-dimse as MPPS SCP: prints "listening", then one JSON line for each N-CREATE and N-SET it was sent.
// Argument: port.
"use strict";

const { Server, Scp, constants, log, responses } = require("dcmjs-dimse");

class Steps extends Scp {
  associationRequested(association) {
    association.getPresentationContexts().forEach((one) => {
      const context = association.getPresentationContext(one.id);
      context.setResult(constants.PresentationContextResult.Accept, context.getTransferSyntaxUids()[0]);
    });
    this.sendAssociationAccept();
  }

  tell(kind, uid, request) {
    const { PerformedProcedureStepStatus, PatientID, PerformedSeriesSequence } = request.getDataset().getElements();
    const series = [].concat(PerformedSeriesSequence || []);
    const images = series.map((one) => [].concat(one.ReferencedImageSequence || []).length);
    console.log(JSON.stringify({ kind, uid, status: PerformedProcedureStepStatus, patient: PatientID, images }));
  }

  nCreateRequest(request, callback) {
    this.tell("create", request.getAffectedSopInstanceUid(), request);
    const response = responses.NCreateResponse.fromRequest(request);
    response.setStatus(constants.Status.Success);
    callback(response);
  }

  nSetRequest(request, callback) {
    this.tell("set", request.getRequestedSopInstanceUid(), request);
    const response = responses.NSetResponse.fromRequest(request);
    response.setStatus(constants.Status.Success);
    callback(response);
  }

  associationReleaseRequested() {
    this.sendAssociationReleaseResponse();
  }
}

log.setLevel("silent");
const server = new Server(Steps);
server.on("networkError", () => process.exit(1));
server.listen(Number(process.argv[2]));
console.log("listening");
